// Shows the rows of the chosen metric, or of all, whose metric and slice hold every word typed.
const metricChoice = document.getElementById("metric-choice");
const words = document.getElementById("metric-words");
const shown = document.getElementById("metric-count");

function filterMetrics() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.getElementById("metrics-table").tBodies[0].rows];
  let count = 0;
  for (const row of rows) {
    const [metric, slice] = [row.cells[0].textContent, row.cells[1].textContent];
    const text = (metric + " " + slice).toLowerCase();
    row.hidden = (metricChoice.value && metricChoice.value !== metric) || !wanted.every((word) => text.includes(word));
    count += !row.hidden;
  }
  document.getElementById("metrics-table").classList.toggle("one-metric", metricChoice.value !== "");
  document.getElementById("metric-caption").textContent = metricChoice.value || "All metrics";
  shown.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
}

if (metricChoice) {
  metricChoice.addEventListener("input", filterMetrics);
  words.addEventListener("input", filterMetrics);
  document.getElementById("metric-filter").hidden = false;
  filterMetrics();
}
