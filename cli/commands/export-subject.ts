import { api, type Json } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { customerPath } from '../customer.ts'
import { toJson } from '../output.ts'
import { Progress } from '../progress.ts'
import { terminal } from '../terminal.ts'

export const exportSubject = new AssayCommand('export-subject')
  .argument('<customer>')
  .argument('<subject>')
  .description(
    'Print everything that is stored about a user, as JSON. ' +
      "It has the user's sessions and the audit events that name the user. The export itself is audited.",
  )
  .example('export-subject k5m2q7xw3bfz6tha user-42 > user-42.json')
  .show(async (id: string, subject: string) => {
    const progress = new Progress('sessions and events')
    const print = new DocumentPrinter()
    let count = 0
    for (let cursor: string | undefined, more = true; more; ) {
      const body = cursor === undefined ? { subject } : { subject, cursor }
      const page = await api.post(customerPath(id, '/subjects/export'), { body })
      print.page(page)
      count += page.sessions.length + page.events.length
      progress.report(count)
      cursor = page.next_cursor
      more = cursor !== undefined
    }
    print.end()
    progress.end()
    return undefined
  })

/**
 * Prints pages as one document while they arrive: those with sessions come first. If one is missing the document isn't closed, so
 * a part can't be taken for the whole.
 */
class DocumentPrinter {
  #list: 'sessions' | 'events' | undefined
  #isEmpty = true

  page({ sessions, events, next_cursor: _, ...about }: Json) {
    if (this.#list === undefined) {
      terminal.out(toJson(about).replace(/\n}$/, ',\n  '))
      this.#begin('sessions')
    }
    this.#print(sessions)
    if (events.length > 0 && this.#list === 'sessions') this.#next()
    this.#print(events)
  }

  end() {
    if (this.#list === 'sessions') this.#next()
    terminal.out(this.#isEmpty ? ']\n}\n' : '\n  ]\n}\n')
  }

  #begin(list: 'sessions' | 'events') {
    this.#list = list
    this.#isEmpty = true
    terminal.out(`"${list}": [`)
  }

  #next() {
    terminal.out(this.#isEmpty ? '],\n  ' : '\n  ],\n  ')
    this.#begin('events')
  }

  #print(rows: Json[]) {
    for (const row of rows) {
      terminal.out(`${this.#isEmpty ? '' : ','}\n${toJson(row).replace(/^/gm, '    ')}`)
      this.#isEmpty = false
    }
  }
}
