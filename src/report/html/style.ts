// Colours and CSS of the HTML report. The colours are told apart by people with any of the common kinds of
// colour blindness and stand out from both backgrounds (a test computes both); lines differ in their dashes too.

/** Of runs, and of quantities within a run, in order; more than these begin again. */
export const SERIES_COLORS = {
  light: ["#cb600d", "#0b6fe6", "#0a2920", "#9e0f90", "#443708", "#6e737a"],
  dark: ["#eb8d39", "#5a97e8", "#e9faf6", "#f3a3e7", "#f9e39d", "#858a93"],
} as const;
export const SERIES_COUNT = 6;

/** Of the page classes, in the order of PAGE_CLASSES: what is saved is blue or violet, what is sent whole orange. */
export const CLASS_COLORS = {
  light: ["#858585", "#3b93c9", "#6d28d9", "#0a3f7a", "#c98200", "#a63603"],
  dark: ["#8a8f98", "#a5d8f5", "#8b5cf6", "#3f8fd6", "#f5c04e", "#e0662a"],
} as const;

export const BACKGROUND = { light: "#ffffff", dark: "#15181d" } as const;
export const TEXT_COLORS = {
  light: { text: "#1b1f24", muted: "#59606b" },
  dark: { text: "#e8eaed", muted: "#a3abb8" },
} as const;

const DASHES = ["none", "none", "7 4", "2 4", "10 3 2 3", "4 2"];

function variables(theme: "light" | "dark"): string {
  const colors = [
    ...SERIES_COLORS[theme].map((color, index) => `--s${index}:${color}`),
    ...CLASS_COLORS[theme].map((color, index) => `--c${index}:${color}`),
    `--background:${BACKGROUND[theme]}`,
    `--text:${TEXT_COLORS[theme].text}`,
    `--muted:${TEXT_COLORS[theme].muted}`,
    `--grid:${theme === "light" ? "#e3e6ea" : "#2b3038"}`,
    `--raised:${theme === "light" ? "#f6f7f9" : "#1c2027"}`,
  ];
  return colors.join(";");
}

function seriesRules(): string {
  return DASHES.map(
    (dash, index) =>
      `.s${index}{stroke:var(--s${index})}.dash${index}{stroke-dasharray:${dash}}.fill-s${index}{fill:var(--s${index})}`,
  ).join("\n");
}

function classRules(): string {
  return CLASS_COLORS.light.map((_, index) => `.c${index}{fill:var(--c${index})}`).join("\n");
}

export const STYLE = `
:root{color-scheme:light dark;${variables("light")}}
@media (prefers-color-scheme:dark){:root{${variables("dark")}}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:24px 16px 48px;background:var(--background);color:var(--text);
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 8px}
h2{font-size:1.2rem;margin:40px 0 8px}
h3{font-size:1rem;margin:0 0 2px}
p{margin:0 0 8px;max-width:75ch}
.lead{font-size:1.1rem}
.muted,figcaption p,.empty{color:var(--muted);font-size:.9rem}
.bad{font-weight:700}
.bad::before{content:"\\26A0\\FE0E  "}
.grid-2{display:grid;gap:32px 28px;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr))}
figure{margin:16px 0 0;min-width:0;display:flex;flex-direction:column}
figcaption p{margin:0 0 4px}
h1,h2,h3,p,li,th,td{overflow-wrap:break-word}
svg{display:block;width:100%;height:auto;max-width:720px;margin-top:auto}
svg.narrow{display:none}
svg.swatch{width:28px;height:12px;margin:0;flex:none}
svg.swatch .line{stroke-width:3}
@media (max-width:560px){svg.wide{display:none}svg.narrow{display:block}h1{font-size:1.35rem}}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;fill:var(--text)}
svg .tick,svg .axis-name,svg .note{fill:var(--muted)}
svg .value{font-weight:600;paint-order:stroke;stroke:var(--background);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--grid);fill:none}
.axis{stroke:var(--muted);fill:none}
.line{fill:none;stroke-width:1.75;stroke-linejoin:round}
.thin{stroke-width:1.25}
.thick{stroke-width:3}
.limit{stroke:var(--muted);stroke-dasharray:3 3;fill:none}
.dot{stroke:var(--background);stroke-width:1.5}
rect{stroke:var(--background);stroke-width:.75}
${seriesRules()}
${classRules()}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;list-style:none;margin:4px 0 6px;padding:0;font-size:.9rem}
.legend li{display:flex;align-items:center;gap:6px}
.scroll{overflow-x:auto}
.scroll+.scroll{margin-top:20px}
table{border-collapse:collapse;font-size:.95rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);font-size:.9rem;padding-bottom:4px}
th,td{padding:5px 14px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid)}
thead th,thead td{border-bottom:1px solid var(--muted)}
tbody th{font-weight:400;color:var(--muted)}
.figures td,.figures thead *+th{text-align:right;padding-left:10px}
.figures td[colspan]{text-align:center}
.figures .first td{font-weight:700;font-size:1.15rem}
.figures .first th{color:var(--text);font-weight:600}
.decisions td:first-child{white-space:nowrap;color:var(--muted)}
details{margin:12px 0}
summary{cursor:pointer}
footer{margin-top:48px;color:var(--muted);font-size:.9rem}
@media (max-width:560px){table{font-size:.85rem}th,td{padding-right:8px}}
@media print{body{max-width:none}details{display:none}}
`;
