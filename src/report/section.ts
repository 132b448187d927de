// A generated section of a Markdown file, between two comments: what people wrote around it stays.

/** `text` with the section `name` replaced, or added at the end. */
export function replaceSection(text: string, name: string, content: string): string {
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const section = `${begin}\n${content}\n${end}`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end, from);
  if (from === -1 || to === -1) return `${text}${text === "" ? "" : "\n"}${section}\n`;
  return text.slice(0, from) + section + text.slice(to + end.length);
}
