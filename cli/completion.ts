import { type Command, CommandError, EXIT } from './command.ts'
import { optionsOf } from './help.ts'

/** Words that may follow others: `` -> customers ..., `customers` -> list ..., `customers list` -> --email ... */
function following(commands: Command[]): Map<string, string[]> {
  const found = new Map<string, string[]>()
  const add = (after: string, word: string) => {
    const words = found.get(after) ?? []
    if (!words.includes(word)) found.set(after, [...words, word])
  }
  for (const command of commands) {
    const [first = '', second] = command.name.split(' ')
    add('', first)
    if (second !== undefined) add(first, second)
    for (const option of Object.keys(optionsOf(command))) add(command.name, `--${option}`)
  }
  return found
}

const bash = (commands: Command[]) => `_assay() {
  local words="\${COMP_WORDS[*]:1:2}" current="\${COMP_WORDS[COMP_CWORD]}"
  if [ "$COMP_CWORD" -lt 2 ]; then words=; elif [ "$COMP_CWORD" -lt 3 ]; then words="\${COMP_WORDS[1]}"; fi
  case "$words" in
${[...following(commands)].map(([after, words]) => bashCase(after, words, commands)).join('\n')}
  esac
}
complete -F _assay assay`

/** What follows a command of one word follows it wherever it goes on; what follows a group, only at once. */
function bashCase(after: string, words: string[], commands: Command[]): string {
  const goesOn = !after.includes(' ') && commands.some(({ name }) => name === after)
  return `    "${after}"${goesOn ? ` | "${after} "*` : ''}) COMPREPLY=($(compgen -W "${words.join(' ')}" -- "$current")) ;;`
}

const zsh = (commands: Command[]) => `autoload -U +X bashcompinit && bashcompinit\n${bash(commands)}`

const fish = (commands: Command[]) =>
  ['complete -c assay -f', ...[...following(commands)].map(([after, words]) => fishLine(after, words))].join(
    '\n',
  )

function fishLine(after: string, words: string[]): string {
  const [first, second] = after.split(' ')
  const when =
    first === ''
      ? '__fish_use_subcommand'
      : second === undefined
        ? `__fish_seen_subcommand_from ${first}`
        : `__fish_seen_subcommand_from ${first}; and __fish_seen_subcommand_from ${second}`
  return `complete -c assay -n '${when}' -a '${words.join(' ')}'`
}

const SHELLS: Record<string, (commands: Command[]) => string> = { bash, zsh, fish }

export const completion = (commands: () => Command[]): Command => ({
  name: 'completion',
  about: 'What to put into the start of a shell, so that it completes these words',
  args: ['SHELL'],
  example: 'completion bash >> ~/.bashrc',
  async run({ args: [shell] }) {
    const script = SHELLS[shell!]
    if (!script) throw new CommandError(EXIT.usage, `SHELL: one of ${Object.keys(SHELLS).join(', ')}`)
    const text = script(commands())
    return { json: { script: text }, text }
  },
})
