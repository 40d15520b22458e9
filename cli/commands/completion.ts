import { Argument, type Command } from 'commander'
import { AssayCommand } from '../command.ts'
import { terminal } from '../terminal.ts'

/** Commander has no completion. The scripts are generated from its command tree. */
export const completion = new AssayCommand('completion')
  .description("Print a completion script for bash, zsh or fish. Add it to your shell's startup file.")
  .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']))
  .example('completion bash >> ~/.bashrc')
  .action((shell: keyof typeof SHELLS) => {
    const words = findWords(completion.parent as Command)
    terminal.out(`${SHELLS[shell](words)}\n`)
  })

/** The words that may follow a command: after `customers` list, show ..., and after `customers list` --email, --name ... */
interface NextWords {
  after: string
  next: string[]
}

function findWords(command: Command, path: string[] = []): NextWords[] {
  const help = command.createHelp()
  const commands = help.visibleCommands(command)
  const options = help.visibleOptions(command).map(({ long }) => long!)
  const next = commands.length === 0 ? options : commands.map(sub => sub.name())
  return [
    { after: path.join(' '), next },
    ...command.commands.flatMap(sub => findWords(sub, [...path, sub.name()])),
  ]
}

/** Options may follow any argument, so the pattern of a command with options is open at the end. */
const createBashCase = ({ after, next }: NextWords) =>
  `    "${after}"${next[0]!.startsWith('-') ? ` | "${after} "*` : ''}) COMPREPLY=($(compgen -W "${next.join(' ')}" -- "$current")) ;;`

const createBash = (words: NextWords[]) => `_assay() {
  local words="\${COMP_WORDS[*]:1:COMP_CWORD-1}" current="\${COMP_WORDS[COMP_CWORD]}"
  case "$words" in
${words.map(createBashCase).join('\n')}
  esac
}
complete -F _assay assay`

function createFishLine({ after, next }: NextWords): string {
  const conditions = after.split(' ').map(word => `__fish_seen_subcommand_from ${word}`)
  const condition = after === '' ? '__fish_use_subcommand' : conditions.join('; and ')
  return `complete -c assay -n '${condition}' -a '${next.join(' ')}'`
}

const SHELLS = {
  bash: createBash,
  zsh: (words: NextWords[]) => `autoload -U +X bashcompinit && bashcompinit\n${createBash(words)}`,
  fish: (words: NextWords[]) => ['complete -c assay -f', ...words.map(createFishLine)].join('\n'),
}
