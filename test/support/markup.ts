// Whether HTML is well formed, as far as our own pages go: every tag that opens is closed, in order.

function tags(html: string): { name: string; closes: boolean }[] {
  return [...html.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*?(\/?)>/gi)].flatMap(([, slash, name, selfClosing]) =>
    selfClosing === "/" || name === "meta" ? [] : [{ name: name ?? "", closes: slash === "/" }],
  );
}

/** The first tag that is not closed, or not opened, where it should be. */
export function unbalancedTag(html: string): string | undefined {
  const open: string[] = [];
  for (const { name, closes } of tags(html.replace(/<style>.*?<\/style>/s, ""))) {
    if (!closes) open.push(name);
    else if (open.pop() !== name) return name;
  }
  return open.pop();
}
