// Completion for zsh, with what each command and option is for.

import type { CommandWords, Value } from "./tree.ts";

export function zshCompletion(tree: readonly CommandWords[]): string {
  const paths = tree.filter(({ path }) => path.length > 0).map(({ path }) => `/${path.join("/")}`);
  return `#compdef deltavee
# zsh completion for deltavee. To have it in every shell, with a folder of $fpath:
#   deltavee completion zsh > ~/.zfunc/_deltavee
_deltavee() {
  local at= word
  local -a commands options
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case $at/$word in
      (${paths.join("|")}) at+=/$word ;;
    esac
  done
  case "$at \${words[CURRENT-1]}" in
${tree.flatMap(valueCases).join("\n")}
  esac
  case $at in
${tree.map(wordCase).join("\n")}
  esac
  if [[ $PREFIX == -* ]]; then _describe -o option options
  elif (( $#commands )); then _describe command commands
  fi
}
if [[ $funcstack[1] == _deltavee ]]; then _deltavee "$@"; else compdef _deltavee deltavee; fi
`;
}

function valueCases({ path, options }: CommandWords): string[] {
  return options.flatMap(({ words, value }) => {
    if (value === undefined) return [];
    const patterns = words.map((word) => quoted(`${pathText(path)} ${word}`)).join("|");
    return [`    (${patterns}) ${generate(value)}; return ;;`];
  });
}

function wordCase({ path, commands, options, argument }: CommandWords): string {
  const choices = Array.isArray(argument) ? argument.map((name: string) => ({ name, says: "" })) : [];
  const entries = [...commands, ...choices].map(({ name, says }) => quoted(entry(name, says)));
  const flags = options.flatMap(({ words, says }) => words.map((word) => quoted(entry(word, says))));
  const files =
    argument === "file" || argument === "folder" ? `[[ $PREFIX == -* ]] || ${generate(argument)}; ` : "";
  return `    (${quoted(pathText(path))}) ${files}commands=(${entries.join(" ")}); options=(${flags.join(" ")}) ;;`;
}

function generate(value: Value): string {
  if (value === "file") return "_files";
  if (value === "folder") return "_files -/";
  if (value === "other") return "_message value";
  return `compadd -- ${value.join(" ")}`;
}

function entry(name: string, says: string): string {
  return `${name}:${says.replaceAll("\\", "\\\\").replaceAll(":", "\\:")}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function pathText(path: readonly string[]): string {
  return path.map((name) => `/${name}`).join("");
}
