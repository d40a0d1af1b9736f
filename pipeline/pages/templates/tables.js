// Columns of numbers sort as numbers, from the largest at first; texts from A. What has no value stays last either way.
function cellKey(cell, numeric) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (!numeric) return text === "" ? null : text;
  const number = parseFloat(text.replace("\u2212", "-").replaceAll(",", ""));
  return isNaN(number) ? null : number;
}

function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentElement.children].indexOf(header);
  const numeric = header.classList.contains("number");
  const first = numeric ? "descending" : "ascending";
  const before = header.getAttribute("aria-sort");
  const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
  const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const keyed = [...table.tBodies[0].rows].map((row) => [cellKey(row.children[column], numeric), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return compare(a, b) * (order === "descending" ? -1 : 1);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
