// `deltavee completion`: prints what a shell needs to complete deltavee's commands, options and their values.

import { Argument, Command } from "commander";
import { bashCompletion } from "./completion/bash.ts";
import { fishCompletion } from "./completion/fish.ts";
import { type CommandWords, commandTree } from "./completion/tree.ts";
import { zshCompletion } from "./completion/zsh.ts";

const SHELLS: Readonly<Record<string, (tree: readonly CommandWords[]) => string>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
};

const HELP = `
Examples:
  For this shell alone (bash):
    eval "$(deltavee completion bash)"
  For every one:
    deltavee completion bash > ~/.local/share/bash-completion/completions/deltavee
    deltavee completion zsh > ~/.zfunc/_deltavee
    deltavee completion fish > ~/.config/fish/completions/deltavee.fish
`;

/** Completes the words of the command line that it is a part of. */
export function completionCommand(): Command {
  return new Command("completion")
    .description("print what a shell needs to complete commands, options and their values")
    .addArgument(new Argument("<shell>", "which shell").choices(Object.keys(SHELLS)))
    .addHelpText("after", HELP)
    .action((shell: string, _options: object, command: Command) => {
      process.stdout.write(SHELLS[shell]!(commandTree(command.parent ?? command)));
    });
}
