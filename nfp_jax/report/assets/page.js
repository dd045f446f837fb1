// Tips of figures, by pointer and by arrow keys; filters of tables; tables of rows.
(() => {
  const tip = document.getElementById("tip");
  let shown = null;

  function text(point) {
    const title = point.querySelector("title");
    if (title) { // else the browser shows it, too
      point.dataset.tip = title.textContent;
      title.remove();
    }
    return point.dataset.tip;
  }

  function show(point) {
    hide();
    shown = point;
    point.classList.add("on");
    tip.textContent = text(point);
    tip.hidden = false;
    const at = point.getBoundingClientRect(), box = tip.getBoundingClientRect();
    const above = at.top - box.height - 6;
    const right = document.documentElement.clientWidth - box.width - 4;
    tip.style.left = Math.max(4, Math.min(at.left + at.width / 2 + 8, right)) + "px";
    tip.style.top = (above > 4 ? above : at.bottom + 6) + "px";
  }

  function hide() {
    if (shown) shown.classList.remove("on");
    shown = null;
    tip.hidden = true;
  }

  const near = (event) => event.target.closest ? event.target.closest(".t") : null;
  document.addEventListener("pointerover", (event) => {
    const point = near(event);
    if (point) show(point);
    else if (shown && event.pointerType) hide();
  });
  document.addEventListener("scroll", (event) => {
    if (shown && !event.target.classList) hide(); // of the page, not of a card
  });

  const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  for (const card of document.querySelectorAll(".card")) {
    const points = [...card.querySelectorAll(".t")];
    let place = -1;
    card.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      if (!(event.key in STEPS) || !points.length || event.ctrlKey || event.altKey) return;
      event.preventDefault();
      const step = STEPS[event.key];
      place = place < 0 && step < 0 ? points.length - 1 : place + step;
      place = (place + points.length) % points.length;
      const at = points[place].getBoundingClientRect(), box = card.getBoundingClientRect();
      if (at.left < box.left || at.right > box.right)
        card.scrollLeft += at.left - box.left - box.width / 2;
      show(points[place]);
    });
    card.addEventListener("blur", hide);
  }

  // What scrolls can be scrolled by keyboard.
  function reach() {
    for (const box of document.querySelectorAll(".scroll"))
      if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight)
        box.tabIndex = 0;
      else box.removeAttribute("tabindex");
  }
  addEventListener("resize", reach);

  // Heads sort by keyboard, too; long tables have a field to filter them by.
  function ready(table) {
    for (const head of table.tHead.rows[0].cells) {
      head.tabIndex = 0;
      head.title = "sort";
      head.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        head.click();
      });
    }
    const body = () => [...table.tBodies[0].rows];
    if (body().length < 8) return;
    const field = document.createElement("input");
    const name = table.caption ? table.caption.textContent : "the table";
    Object.assign(field, { type: "search", className: "filter", placeholder: "filter" });
    field.setAttribute("aria-label", "Lines of this table that have these words: " + name);
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      for (const row of body()) {
        const line = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
        row.hidden = !words.every((word) => line.includes(word));
      }
    });
    table.parentNode.before(field);
  }

  // Tables of rows are made when they are unfolded.
  function built(details) {
    const data = details.querySelector("script");
    const columns = JSON.parse(data.textContent), names = Object.keys(columns);
    const table = document.createElement("table");
    table.className = "sortable asc n-last";
    const isText = names.map((name) => columns[name].some((x) => typeof x === "string"));
    const head = table.createTHead().insertRow();
    for (const name of names) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    }
    const mark = (row) => isText.forEach((text, i) => {
      if (text) row.cells[i].className = "name";
    });
    mark(head);
    const body = table.createTBody();
    for (let i = 0; names.length && i < columns[names[0]].length; i++) {
      const row = body.insertRow();
      for (const name of names) {
        const value = columns[name][i];
        row.insertCell().textContent = value === null ? "" : value;
      }
      mark(row);
    }
    const box = document.createElement("div");
    box.className = "scroll";
    box.append(table);
    data.replaceWith(box);
    ready(table);
    reach();
  }
  for (const details of document.querySelectorAll("details.rows"))
    details.addEventListener("toggle", () => built(details), { once: true });
  document.querySelectorAll("table.sortable").forEach(ready);
  reach();
})();
