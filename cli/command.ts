import { type Argument, Command, type Option } from 'commander'
import type { Json } from './client.ts'
import { CommandError, EXIT } from './errors.ts'
import { toJson } from './output.ts'
import { terminal } from './terminal.ts'

/** A command prints `text`, or `json` with `--json`. */
export interface Output {
  text: string
  json: Json
}

/** Adds to commander what all our commands share: help of 80 columns, CommandError, `--json` and an example. */
export class AssayCommand extends Command {
  constructor(name?: string) {
    super(name)
    this.configureHelp({
      helpWidth: 80,
      subcommandTerm: formatTerm,
      subcommandDescription: getFirstSentence,
      optionDescription: describeValue,
      argumentDescription: describeValue,
    })
    this.helpOption('-h, --help', 'show this help')
    this.helpCommand(false)
    // Called after commander has printed help or the version.
    this.exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : EXIT.usage))
  }

  override createCommand(name?: string): AssayCommand {
    return new AssayCommand(name)
  }

  /** `words`: what follows `assay`, in one or more examples. */
  example(...words: string[]): this {
    return this.addHelpText('after', `\nExample:\n${words.map(each => `  assay ${each}`).join('\n')}`)
  }

  /**
   * Runs `run` with the arguments and the options. Prints the result; undefined means that `run` has already printed.
   */
  show(run: (...args: never[]) => Promise<Output | undefined>): this {
    return this.option('--json', 'print JSON, for scripts').action(async (...args) => {
      const output = await run(...(args as never[]))
      if (output) terminal.out(`${this.opts().json ? toJson(output.json) : output.text}\n`)
    })
  }

  /** Called by commander for every mistake in the command line. */
  override error(message: string, { code }: { code?: string } = {}): never {
    const mistake = describeMistake(message, code)
      .replace(/^error: /, '')
      .replace(/\.$/, '')
    throw new CommandError(EXIT.usage, `${mistake}; see assay ${[...this.path(), '--help'].join(' ')}`)
  }

  /** Its words after `assay`. */
  path(): string[] {
    const parent = this.parent as AssayCommand | null
    return parent === null ? [] : [...parent.path(), this.name()]
  }

  /** This command and every one below it. */
  all(): AssayCommand[] {
    return [this, ...(this.commands as AssayCommand[]).flatMap(command => command.all())]
  }

  /** The commands without sub-commands. */
  leaves(): AssayCommand[] {
    return this.all().filter(({ commands }) => commands.length === 0)
  }
}

/** Formats a command for a list of commands: its name and its arguments. */
const formatTerm = (command: Command) =>
  [
    command.name(),
    ...command.registeredArguments.map(one => (one.required ? `<${one.name()}>` : `[${one.name()}]`)),
  ].join(' ')

const getFirstSentence = (command: Command) =>
  /^.*?\.(?= |$)/.exec(command.description())?.[0] ?? command.description()

/** Describes an option or an argument with its choices and its default. It is shorter than what commander makes of them. */
function describeValue({ description, argChoices, defaultValue }: Option | Argument): string {
  const choices = argChoices ? `: ${argChoices.join(', ')}` : ''
  return `${description}${choices}${defaultValue === undefined ? '' : ` (default: ${defaultValue})`}`
}

/** Makes one line of commander's message, and removes values, because they may be a token or a password. */
function describeMistake(message: string, code: string | undefined): string {
  if (code === 'commander.excessArguments') return 'too many arguments'
  if (code === 'commander.unknownOption') return message.replace(/=.*'/s, "'").replace('\n', ' ')
  return message.replaceAll('\n', ' ')
}
