"use strict";
(() => {
  const tools = document.getElementById("tools");
  if (!tools) return;
  const search = document.getElementById("search");
  const expand = document.getElementById("expand");
  const found = document.getElementById("found");
  const buttons = [...tools.querySelectorAll("button[data-f]")];
  const rows = [...document.querySelectorAll("#all > tbody > tr")].map((row) => ({
    row,
    text: row.textContent.toLowerCase(),
    state: row.dataset.s,
  }));
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.f);
    let shown = 0;
    for (const { row, text, state } of rows) {
      const fits = (!chosen.length || chosen.includes(state)) && words.every((word) => text.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    found.textContent = shown.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " rows";
  };
  const toggle = (button) => {
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pressed));
    return pressed;
  };
  search.addEventListener("input", filter);
  tools.addEventListener("submit", (event) => event.preventDefault());
  for (const button of buttons) {
    button.addEventListener("click", () => {
      toggle(button);
      filter();
    });
  }
  expand.addEventListener("click", () => {
    const open = toggle(expand);
    for (const details of document.querySelectorAll("#all details")) details.open = open;
  });
  tools.hidden = false;
  filter();
})();
