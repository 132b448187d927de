// Completion for bash, as one function that knows every command. Needs nothing but bash 4.4.

import type { CommandWords, Value } from "./tree.ts";

export function bashCompletion(tree: readonly CommandWords[]): string {
  const paths = tree.filter(({ path }) => path.length > 0).map(({ path }) => `/${path.join("/")}`);
  return `# bash completion for deltavee. To have it in every shell:
#   deltavee completion bash > ~/.local/share/bash-completion/completions/deltavee
_deltavee() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} path= word
  # bash takes --option=value for three words.
  if [[ $cur == = ]]; then cur=
  elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $path/$word in
      ${paths.join(" | ")}) path+=/$word ;;
    esac
  done
  case "$path $prev" in
${tree.flatMap(valueCases).join("\n")}
  esac
  local words=
  case $path in
${tree.map(wordCase).join("\n")}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _deltavee deltavee
`;
}

function valueCases({ path, options }: CommandWords): string[] {
  return options.flatMap(({ words, value }) => {
    if (value === undefined) return [];
    const patterns = words.map((word) => `"${pathText(path)} ${word}"`).join(" | ");
    return [`    ${patterns}) ${generate(value)}; return ;;`];
  });
}

function wordCase({ path, commands, options, argument }: CommandWords): string {
  const names = [...commands.map(({ name }) => name), ...(Array.isArray(argument) ? argument : [])];
  const flags = options.flatMap((option) => option.words.filter((word) => word.startsWith("--")));
  const files =
    argument === "file" || argument === "folder"
      ? `if [[ $cur != -* ]]; then ${generate(argument)}; return; fi; `
      : "";
  const words =
    names.length === 0
      ? `words="${flags.join(" ")}"`
      : `if [[ $cur == -* ]]; then words="${flags.join(" ")}"; else words="${names.join(" ")}"; fi`;
  return `    "${pathText(path)}") ${files}${words} ;;`;
}

function generate(value: Value): string {
  if (value === "file") return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")';
  if (value === "folder") return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur")';
  if (value === "other") return ":";
  return `mapfile -t COMPREPLY < <(compgen -W "${value.join(" ")}" -- "$cur")`;
}

function pathText(path: readonly string[]): string {
  return path.map((name) => `/${name}`).join("");
}
