// Colours and CSS of the lab's page, beyond those of every report: maps. Text stands on these colours, so each is far
// enough from the colour of text (a test computes it), and says in words what the colour says.

/** From the least to the greatest of a map, HEAT_LEVELS of them. */
export const HEAT_COLORS = {
  light: ["#eef4fb", "#d3e3f6", "#b3cfef", "#8fb8e8", "#6a9fdf"],
  dark: ["#1a222d", "#1d3049", "#204067", "#235187", "#2763a8"],
} as const;

/** Whose a cell is. */
export const WINNER_COLORS = {
  light: { ours: "#fbd9b8", open: "#f3ecc8", other: "#d9dde3" },
  dark: { ours: "#6b3d12", open: "#4a431c", other: "#3a414c" },
} as const;

function variables(theme: "light" | "dark"): string {
  const heat = HEAT_COLORS[theme].map((color, index) => `--h${index}:${color}`);
  const winners = Object.entries(WINNER_COLORS[theme]).map(([name, color]) => `--${name}:${color}`);
  return [...heat, ...winners].join(";");
}

export const LAB_STYLE = `
:root{${variables("light")}}
@media (prefers-color-scheme:dark){:root{${variables("dark")}}}
nav ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:4px 20px}
a{color:inherit}
a:focus-visible,.scroll:focus-visible,summary:focus-visible{outline:3px solid var(--s1);outline-offset:2px}
section{margin-top:40px}
h2{margin-top:0}
h3{margin-top:28px}
figure h3,figure h4{margin-top:0}
h4{font-size:.95rem;margin:0}
.range{stroke:var(--text);stroke-width:2;fill:none}
.figures tfoot td,.figures tfoot th{border-top:1px solid var(--muted);border-bottom:0;font-style:italic}
.figures tbody th,.figures tbody td{white-space:nowrap}
.prose td,.prose th{min-width:9ch}
.prose td:last-child{min-width:34ch}
.notes{font-size:.9rem;color:var(--muted);margin:6px 0 14px;padding-left:1.2em;max-width:75ch}
.records{font-size:.85rem;color:var(--muted);overflow-wrap:anywhere}
.heat{border-collapse:separate;border-spacing:2px;margin:0}
.heat th,.heat td{padding:6px 8px;border:0;text-align:center;min-width:7ch}
.box{width:16px;height:12px;border:1px solid var(--muted);flex:none}
.heat tbody th{text-align:right;white-space:nowrap}
.heat td{color:var(--text)}
${HEAT_COLORS.light.map((_, index) => `.h${index}{background:var(--h${index})}`).join("")}
.ours{background:var(--ours)}.open{background:var(--open)}.other{background:var(--other)}
`;
