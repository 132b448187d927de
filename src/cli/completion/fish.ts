// Completion for fish: one line for each command and option, valid where a function finds that command on the line.

import type { CommandWords, Value } from "./tree.ts";

export function fishCompletion(tree: readonly CommandWords[]): string {
  const paths = tree.filter(({ path }) => path.length > 0).map(({ path }) => `/${path.join("/")}`);
  return `# fish completion for deltavee. To have it in every shell:
#   deltavee completion fish > ~/.config/fish/completions/deltavee.fish
function __deltavee_at
  set -l at ''
  for word in (commandline -opc)[2..]
    contains -- $at/$word ${paths.join(" ")}; and set at $at/$word
  end
  test "$at" = "$argv[1]"
end
complete -c deltavee -f
${tree.flatMap(lines).join("\n")}
`;
}

function lines({ path, commands, options, argument }: CommandWords): string[] {
  const at = `complete -c deltavee -n '__deltavee_at "${path.map((name) => `/${name}`).join("")}"'`;
  return [
    ...commands.map(({ name, says }) => `${at} -a ${name} -d ${quoted(says)}`),
    ...(argument === undefined || argument === "other" ? [] : [`${at} ${generate(argument)}`]),
    ...options.map(({ words, says, value }) => {
      const names = words.map((word) =>
        word.startsWith("--") ? `-l ${word.slice(2)}` : `-s ${word.slice(1)}`,
      );
      const follows = value === undefined ? [] : [value === "other" ? "-x" : `-r ${generate(value)}`];
      return [at, ...names, ...follows, "-d", quoted(says)].join(" ");
    }),
  ];
}

function generate(value: Exclude<Value, "other">): string {
  if (value === "file") return "-F";
  if (value === "folder") return "-f -a '(__fish_complete_directories)'";
  return `-f -a ${quoted(value.join(" "))}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
