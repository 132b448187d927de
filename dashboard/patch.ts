// Brings what an element holds to what some HTML says, and touches only what differs: whatever is focused, scrolled or
// opened stays so, and an update costs little. The HTML comes from src/report, which escapes what records hold; the
// page's content policy lets no script run that is not ours.

/** `without`: a selector of what is left out. */
export function patch(target: Element, html: string, without?: string): void {
  const template = document.createElement("template");
  template.innerHTML = html;
  if (without !== undefined)
    for (const element of template.content.querySelectorAll(without)) element.remove();
  patchChildren(target, template.content);
}

function patchChildren(parent: Node, wanted: Node): void {
  const children = [...wanted.childNodes];
  // Elements with an id are the same wherever they stand among the others: a list's entries, say.
  const ids = new Set(children.map(idOf).filter((id) => id !== ""));
  let current = parent.firstChild;
  const skip = (): void => {
    while (current !== null && idOf(current) !== "" && !ids.has(idOf(current))) {
      const gone = current;
      current = current.nextSibling;
      gone.remove();
    }
  };
  for (const child of children) {
    skip();
    if (current === null) parent.appendChild(child);
    else if (isSame(current, child)) {
      patchNode(current, child);
      current = current.nextSibling;
    } else if (idOf(current) !== "") parent.insertBefore(child, current);
    else {
      const next = current.nextSibling;
      parent.replaceChild(child, current);
      current = next;
    }
  }
  while (current !== null) {
    const gone: ChildNode = current;
    current = current.nextSibling;
    gone.remove();
  }
}

function idOf(node: Node): string {
  return node instanceof Element ? node.id : "";
}

function isSame(a: Node, b: Node): boolean {
  return a.nodeName === b.nodeName && idOf(a) === idOf(b);
}

function patchNode(node: Node, wanted: Node): void {
  if (node instanceof Element && wanted instanceof Element) {
    patchAttributes(node, wanted);
    patchChildren(node, wanted);
  } else if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
}

function patchAttributes(element: Element, wanted: Element): void {
  for (const { name, value } of wanted.attributes) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
  for (const { name } of [...element.attributes]) {
    // Whether details are open is the reader's to say.
    if (!wanted.hasAttribute(name) && !(name === "open" && element.localName === "details")) {
      element.removeAttribute(name);
    }
  }
}
