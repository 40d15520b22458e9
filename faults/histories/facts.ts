import { ask, type Stage } from '../stage.ts'
import { eventKey, type Facts } from './kept.ts'
import { customerKey, sessionKey, subjectKey, tokenKey } from './known.ts'
import type { Names } from './names.ts'

/** Reads from the database everything that the history names. */
export async function readFacts(stage: Stage, names: Names): Promise<Facts> {
  const [sessions, events, secrets] = [
    await readSessions(stage),
    await readEvents(stage),
    await readSecrets(stage),
  ]
  const facts: Facts = { sessions: new Map(), events: new Map(), secrets: [] }
  for (const { id, ...fact } of sessions) facts.sessions.set(names.find(id) ?? id, fact)
  for (const event of events) {
    const key = keyOf(event, names)
    facts.events.set(key, (facts.events.get(key) ?? 0) + event.count)
  }
  facts.secrets = secrets.map(secret => ({
    ...secret,
    customer: names.find(secret.customer) ?? secret.customer,
  }))
  return facts
}

const readSessions = (stage: Stage) =>
  ask<{ id: string; gen: number; revoked: boolean; superseded: boolean; rotations: number }>(
    stage,
    `with rotated as (
      select session_id, count(*)::int as rotations from assay.audit_events
      where type in ('session.refreshed', 'session.adopted') group by session_id
    )
    select s.id, s.gen, s.revoked_at is not null as revoked, coalesce(rotated.rotations, 0) as rotations,
      c.epoch > s.customer_epoch or coalesce(e.epoch, 0) > s.subject_epoch as superseded
    from assay.sessions s
    join assay.customers c on c.id = s.customer_id
    left join assay.subject_epochs e on e.customer_id = s.customer_id and e.subject = s.subject
    left join rotated on rotated.session_id = s.id`,
  )

interface Event {
  type: string
  customer: string
  subject: string
  session: string
  token: string
  count: number
}

const readEvents = (stage: Stage) =>
  ask<Event>(
    stage,
    `select type, coalesce(customer_id, '') as customer, coalesce(subject, '') as subject,
      coalesce(session_id, '') as session, coalesce(token_id, '') as token, count(*)::int as count
    from assay.audit_events group by type, customer_id, subject, session_id, token_id`,
  )

const readSecrets = (stage: Stage) =>
  ask<Facts['secrets'][number]>(
    stage,
    'select customer_id as customer, use, version, state from assay.signing_keys',
  )

/** The subject of an event, in the form that kept.ts uses. */
function keyOf({ type, customer, subject, session, token }: Event, names: Names): string {
  const name = (id: string) => names.find(id) ?? id
  if (type === 'token.revoked') return eventKey(type, tokenKey(name(token)))
  if (token !== '') return eventKey('token given', tokenKey(name(token)))
  if (type === 'subject.revoked') return eventKey(type, subjectKey(name(customer), name(subject)))
  if (type.startsWith('session.')) return eventKey(type, sessionKey(name(session)))
  return eventKey(type, customerKey(name(customer)))
}
