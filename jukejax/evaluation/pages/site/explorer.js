
// The list of songs: filters, a list with only the rows in view, items loaded when selected.
const Explorer = (() => {
  const HEIGHT = 56, SPARE = 6;  // pixels of a row (explorer.css), rows kept beyond the view
  const get = (id) => document.getElementById(id);
  const list = get("list"), rows = get("rows"), search = get("search");
  const facets = { artist: (row) => [row.artist], genre: (row) => row.genres, model: (row) => [row.model],
                   step: (row) => row.step === null ? [] : [String(row.step)], kind: (row) => [row.kind] };
  for (const row of INDEX) {
    row.text = [row.artist, ...row.genres, row.model, row.step ?? "", row.kind, row.place, row.lyrics].join(" ").toLowerCase();
  }
  let shown = INDEX, chosen = null, song = null;
  const waiting = new Map(), items = new Map();

  function option(value, text) {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    return made;
  }
  for (const [name, values] of Object.entries(facets)) {
    const found = [...new Set(INDEX.flatMap(values))].filter(Boolean);
    found.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    get(`by-${name}`).append(option("", "all"), ...found.map((value) => option(value, value)));
    get(`by-${name}`).addEventListener("change", filter);
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const asked = Object.entries(facets).map(([name, values]) => [get(`by-${name}`).value, values]).filter(([value]) => value);
    shown = INDEX.filter((row) => words.every((word) => row.text.includes(word))
      && asked.every(([value, values]) => values(row).includes(value)));
    get("count").textContent = `${shown.length} of ${INDEX.length} songs`;
    list.scrollTop = 0;
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + SPARE);
    rows.style.height = `${shown.length * HEIGHT}px`;
    rows.replaceChildren(...shown.slice(first, last).map((row, index) => {
      const made = document.createElement("div"), title = document.createElement("b"), more = document.createElement("span");
      Object.assign(made, { id: `row-${row.id}`, className: "row" });
      made.style.top = `${(first + index) * HEIGHT}px`;
      made.setAttribute("role", "option");
      made.setAttribute("aria-selected", String(row.id === chosen));
      made.setAttribute("aria-posinset", first + index + 1);
      made.setAttribute("aria-setsize", shown.length);
      title.textContent = row.artist;
      title.dir = "auto";
      const step = row.step === null ? [] : [`step ${row.step}`];
      const model = row.model.split("/").slice(-2).join("/");
      more.textContent = [row.kind, row.place, ...row.genres, ...step, `${Math.round(row.seconds)} s`, model].filter(Boolean).join(" · ");
      made.append(title, more);
      made.addEventListener("click", () => choose(row.id, true));
      return made;
    }));
    if (get(`row-${chosen}`)) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  // The item's data; its script calls `loaded`. Works from disk, where fetch does not.
  function load(id) {
    if (!items.has(id)) {
      items.set(id, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        waiting.set(id, resolve);
        script.src = `items/${id}/item.js`;
        script.onerror = () => { items.delete(id); reject(new Error(`items/${id}/item.js could not be loaded: is it beside this page?`)); };
        script.onload = () => script.remove();
        document.head.append(script);
      }));
      if (items.size > 50) items.delete(items.keys().next().value);
    }
    return items.get(id);
  }

  async function choose(id, jump = false) {
    chosen = id;
    draw();
    location.replace(`#${id}`);
    let item, failure = "";
    try { item = await load(id); } catch (error) { failure = error.message; }
    if (id !== chosen) return;
    if (song) song.close();
    song = null;
    if (item) {
      get("detail").innerHTML = item.html;
      song = Player.open(get("detail").querySelector(".song"));
      Player.use(song);
    } else get("detail").textContent = failure;
    const top = (element) => element.getBoundingClientRect().top;
    if (jump && top(get("detail")) > top(list) + HEIGHT) get("detail").scrollIntoView();  // it is below
  }

  function move(steps) {
    if (!shown.length) return;
    const at = shown.findIndex((row) => row.id === chosen);
    const next = Math.min(Math.max(at < 0 ? 0 : at + steps, 0), shown.length - 1), top = next * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    choose(shown[next].id);
  }

  function show(part) {
    for (const name of ["browse", "blind"]) {
      get(name).hidden = name !== part;
      get(`to-${name}`).setAttribute("aria-pressed", String(name === part));
    }
    if (song) song.pause();
    if (part === "browse") Player.use(song);
    draw();
  }

  list.addEventListener("scroll", draw);
  window.addEventListener("resize", draw);
  search.addEventListener("input", filter);
  get("filters").addEventListener("submit", (event) => event.preventDefault());
  get("to-browse").addEventListener("click", () => show("browse"));
  get("to-blind").addEventListener("click", () => { show("blind"); Blind.ready(); });
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -INDEX.length, End: INDEX.length }[event.key];
    if (!steps) return;
    move(steps);
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (get("browse").hidden || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input[type=search], select")) return;
    if (event.key === "/") search.focus();
    else if (event.key === "n" || event.key === "p") move(event.key === "n" ? 1 : -1);
    else return;
    event.preventDefault();
  });
  filter();
  const asked = INDEX.find((row) => `#${row.id}` === location.hash) || INDEX[0];
  setTimeout(() => choose(asked.id));  // after this script, which items call
  return { load, option, get, loaded: (id, item) => { waiting.get(id)?.(item); waiting.delete(id); } };
})();
