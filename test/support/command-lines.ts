// Command lines of deltavee as documents and --help show them, held against the real command tree: every option must be
// one, every value readable, every argument wanted. Nothing is run.

import { programFor, withAllBelow } from "../../src/cli/program.ts";

/** Words of a line of shell: quotes and escapes, no expansion. A comment ends it. */
export function shellWords(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  const pattern = /'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|(\s+)|(#.*$)|([^\s'"\\])/gy;
  for (const [, single, double, kept, space, comment, plain] of line.matchAll(pattern)) {
    if (comment !== undefined && word === undefined) break;
    if (space !== undefined) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else
      word = (word ?? "") + (single ?? double?.replace(/\\(["\\$`])/g, "$1") ?? kept ?? comment ?? plain);
  }
  if (word !== undefined) words.push(word);
  return words;
}

/**
 * The words after "deltavee" of each of its command lines in `text`: also where it is started as npm start, by node, or
 * at a host's prompt ("host1$ "). A backslash at the end of a line joins it with the next one.
 */
export function deltaveeLines(text: string): string[][] {
  return text
    .replace(/\s*\\\n\s*/g, " ")
    .split("\n")
    .flatMap((line) => {
      // Of help two spaces set what is said about a line apart from it.
      const command = line
        .trim()
        .replace(/^(?:[a-z0-9]+)?\$ /, "")
        .replace(/^(?:sudo|time) /, "");
      const found =
        /^(?:npx )?(?:(?:deltavee|node dist\/cli\/main\.js)(?: |$)(.*)|npm start(?: --(?: (.*))?)?$)/.exec(
          command.replace(/\s{2,}[a-z#].*$/, ""),
        );
      if (found === null) return [];
      const isDemo = found[1] === undefined;
      const words = shellWords((found[1] ?? found[2] ?? "").replace(/\s*(?:[>|&]|\d>).*$/, ""));
      return [isDemo ? ["demo", ...words] : words];
    });
}

/** `words`: after "deltavee". @throws Error that says what is wrong with it */
export async function parseDeltavee(words: readonly string[]): Promise<void> {
  if (words.length === 0) return;
  const program = await programFor(words);
  let said = "";
  for (const command of withAllBelow(program)) {
    command
      .exitOverride()
      .configureOutput({ writeErr: (text) => (said += text), writeOut: () => {} })
      .showHelpAfterError(false);
    if (command.commands.length === 0) command.action(() => {});
  }
  try {
    await program.parseAsync([...words], { from: "user" });
  } catch (thrown) {
    const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
    if (["commander.helpDisplayed", "commander.help", "commander.version"].includes(code)) return;
    throw new Error(`deltavee ${words.join(" ")}: ${said || String(thrown)}`, { cause: thrown });
  }
}
