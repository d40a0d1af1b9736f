const figures = JSON.parse(document.getElementById("figures").textContent);
const narrow = window.matchMedia("(max-width: 40rem)");

// Colours live in the style sheet alone, so charts follow its light, dark and printed forms.
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// Beside long labels a narrow screen has no room for a chart: they are broken into lines.
function broken(label) {
  const lines = [""];
  for (const word of label.split(" ")) {
    const line = lines[lines.length - 1];
    if (line && line.length + word.length >= 20) lines.push(word);
    else lines[lines.length - 1] = line ? line + " " + word : word;
  }
  return lines.join("<br>");
}

// Plotly reads some tags in labels: what the data call themselves is shown as it is.
function literal(label) {
  return typeof label === "string" ? label.replaceAll("&", "&amp;").replaceAll("<", "&lt;") : label;
}

function styled(figure) {
  const dressed = structuredClone(figure);
  const layout = dressed.layout;
  if (layout.yaxis.type === "category") {
    const told = narrow.matches ? (label) => broken(literal(label)) : literal;
    for (const trace of dressed.data) trace.y = trace.y.map(told);
    layout.yaxis.categoryarray = layout.yaxis.categoryarray.map(told);
    const lines = layout.yaxis.categoryarray.join("<br>").split("<br>").length;
    layout.height += 18 * (lines - layout.yaxis.categoryarray.length);
  }
  for (const trace of dressed.data) {
    const tint = colour(trace.meta.colour);
    trace.marker = { color: tint, size: 8, symbol: trace.meta.open ? "circle-open" : "circle", line: { width: 2, color: tint } };
    trace.line = { color: tint, width: 2 };
    for (const error of [trace.error_x, trace.error_y]) if (error) error.color = tint;
    if (trace.mode.includes("text")) trace.textfont = { color: colour("soft"), size: 11 };
  }
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  layout.font = { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 13, color: colour("ink") };
  layout.hoverlabel = { bgcolor: colour("wash"), bordercolor: colour("line"), font: { color: colour("ink") } };
  for (const axis of [layout.xaxis, layout.yaxis]) {
    Object.assign(axis, { gridcolor: colour("line"), zerolinecolor: colour("ink"), linecolor: colour("line"), fixedrange: true });
    if (axis.title) axis.title.font = { size: 12, color: colour("soft") };
  }
  layout.yaxis.showgrid = layout.yaxis.type !== "category";
  layout.xaxis.nticks ??= narrow.matches ? 4 : 8;
  return dressed;
}

// Nothing tells a page how wide the paper is before it is printed: these fit A4 and Letter, upright.
const PAPER = { width: 640, height: 900 };
let printing = false;

function draw() {
  for (const [name, figure] of Object.entries(figures)) {
    const { data, layout } = styled(figure);
    if (printing) {
      const share = document.getElementById(name).clientWidth / document.body.clientWidth;
      layout.width = PAPER.width * Math.min(share, 1);
      layout.height = Math.min(layout.height, PAPER.height);
    }
    Plotly.react(name, data, layout, { displayModeBar: false, responsive: true });
  }
}

const details = [...document.querySelectorAll("details:not(.optional)")];
window.addEventListener("beforeprint", () => {
  for (const part of details) part.open = true;
  printing = true;
  draw();
});
window.addEventListener("afterprint", () => { printing = false; draw(); });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
window.matchMedia("print").addEventListener("change", draw);
narrow.addEventListener("change", draw);
draw();
