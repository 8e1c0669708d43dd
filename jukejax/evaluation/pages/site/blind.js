
// The blind test: pairs of versions of the same song, ratings in localStorage, preferences.
const Blind = (() => {
  const { get, option } = Explorer;
  const KEY = `jukejax ratings ${location.pathname}`;
  const Z = 1.959964;  // the normal distribution's 97.5 % point
  let queue = [], song = null, trial = null, ratings = [];
  try { ratings = JSON.parse(localStorage.getItem(KEY)) || []; } catch { /* a browser without storage */ }

  // sounds by system and prompt: {system: {prompt: [[item, version], ...]}}
  const sounds = new Map();
  for (const row of INDEX) {
    for (const [key, system] of Object.entries(row.systems)) {
      if (!sounds.has(system)) sounds.set(system, new Map());
      const prompts = sounds.get(system);
      if (!prompts.has(row.prompt)) prompts.set(row.prompt, []);
      prompts.get(row.prompt).push([row.id, key]);
    }
  }
  const systems = [...sounds.keys()].sort();

  function pairs(x, y) {
    if (x === y) return [];
    return [...sounds.get(x)].flatMap(([prompt, ours]) => {
      const theirs = sounds.get(y).get(prompt) || [];
      return ours.slice(0, theirs.length).map((sound, index) => ({ x: sound, y: theirs[index] }));
    });
  }

  // Wilson (1927), "Probable inference, the law of succession, and statistical inference"
  function wilson(wins, n) {
    if (!n) return [0, 1];
    const p = wins / n, scale = 1 / (1 + Z * Z / n);
    const centre = scale * (p + Z * Z / (2 * n));
    const half = scale * Z * Math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n));
    return [Math.max(0, centre - half), Math.min(1, centre + half)];
  }

  // A pair of systems counts once, whichever of the two was asked for first.
  function preferences() {
    const found = new Map();
    for (const rating of ratings) {
      const [first, second] = [rating.x.system, rating.y.system].sort();
      const name = JSON.stringify([first, second]);
      if (!found.has(name)) found.set(name, { first, second, wins: 0, losses: 0, same: 0 });
      const entry = found.get(name);
      if (rating.preferred === null) entry.same += 1;
      else if (rating.preferred === first) entry.wins += 1;
      else entry.losses += 1;
    }
    return [...found.values()].map((entry) => {
      const n = entry.wins + entry.losses;
      return { ...entry, preference: n ? entry.wins / n : null, interval: wilson(entry.wins, n) };
    });
  }

  function store() {
    try { localStorage.setItem(KEY, JSON.stringify(ratings)); }
    catch { if (song) song.note.textContent = "This browser stores nothing: export before you close the page."; }
    results();
  }

  function results() {
    const found = preferences();
    if (!found.length) { get("results").textContent = "No ratings yet."; return; }
    const table = document.createElement("table");
    const line = (cells, kind) => {
      const row = table.insertRow();
      for (const text of cells) row.append(Object.assign(document.createElement(kind), { textContent: text }));
    };
    const percent = (x) => `${(100 * x).toFixed(0)} %`;
    line(["First", "Second", "First better", "Second better", "No difference", "Preference for the first", "95 % interval"], "th");
    for (const e of found) {
      line([e.first, e.second, e.wins, e.losses, e.same, e.preference === null ? "–" : percent(e.preference),
            e.interval.map(percent).join(" to ")], "td");
    }
    get("results").replaceChildren(table);
  }

  function count() {
    const found = pairs(get("side-x").value, get("side-y").value).length;
    get("pairs").textContent = `${found} ${found === 1 ? "pair" : "pairs"}`;
  }

  function shuffle(list) {
    for (let i = list.length - 1; i > 0; i -= 1) {
      const j = Math.floor(Math.random() * (i + 1));
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  }

  function start(event) {
    event.preventDefault();
    const x = get("side-x").value, y = get("side-y").value;
    const times = (pair) => ratings.filter((r) => r.x.item === pair.x[0] && r.x.version === pair.x[1]
      && r.y.item === pair.y[0] && r.y.version === pair.y[1]).length;
    queue = shuffle(pairs(x, y).map((pair) => ({ ...pair, systems: { x, y }, times: times(pair) })));
    queue.sort((a, b) => a.times - b.times);  // those not rated yet come first
    next();
  }

  async function next() {
    if (song) song.close();
    song = trial = null;
    const pair = queue.shift();
    if (!pair) { get("trial").textContent = "No more pairs."; return; }
    const order = Math.random() < 0.5 ? ["x", "y"] : ["y", "x"];
    let sides;
    try { sides = await Promise.all(order.map(async (side) => (await Explorer.load(pair[side][0])).tracks[pair[side][1]])); }
    catch (error) { get("trial").textContent = error.message; return; }
    get("trial").replaceChildren(get("pair").content.cloneNode(true));
    const root = get("trial").querySelector(".song");
    const seconds = Math.min(...sides.map((side) => side.seconds));
    root.dataset.seconds = root.querySelector(".seek").max = seconds;
    const quieter = Math.min(...sides.map((side) => side.rms));
    root.querySelectorAll(".track").forEach((figure, index) => {
      const audio = figure.querySelector("audio");
      figure.dataset.seconds = seconds;
      audio.src = sides[index].wav;
      audio.volume = sides[index].rms > 0 ? quieter / sides[index].rms : 1;
    });
    trial = { pair, order };
    song = Player.open(root);
    Player.use(song);
    song.choose(song.tracks[0]);
    song.button.focus();
    root.addEventListener("playing", () => {
      if (!song.tracks.every((track) => track.heard)) return;
      root.querySelector(".rate").classList.add("open");
      for (const button of root.querySelectorAll(".rate button")) button.disabled = false;
    });
    for (const button of root.querySelectorAll(".rate button")) button.addEventListener("click", () => rate(button.dataset.rating));
  }

  function rate(choice) {
    const { pair, order } = trial;
    const side = (name) => ({ system: pair.systems[name], item: pair[name][0], version: pair[name][1] });
    const better = { a: order[0], b: order[1] }[choice];
    ratings.push({ time: new Date().toISOString(), x: side("x"), y: side("y"), a: order[0],
                   preferred: better ? pair.systems[better] : null });
    store();
    next();
  }

  function save() {
    const text = JSON.stringify({ formula: "Wilson score interval, 95 %", preferences: preferences(), ratings }, null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "ratings.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  for (const name of ["side-x", "side-y"]) {
    get(name).append(...systems.map((system) => option(system, system)));
    get(name).addEventListener("change", count);
  }
  if (systems.length > 1) get("side-y").selectedIndex = 1;
  get("sides").addEventListener("submit", start);
  get("export").addEventListener("click", save);
  get("forget").addEventListener("click", () => {
    if (!confirm(`Delete ${ratings.length} ratings of this site?`)) return;
    ratings = [];
    store();
  });
  document.addEventListener("keydown", (event) => {
    if (!trial || get("blind").hidden || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
    const choice = { a: "a", b: "b", s: "same" }[event.key];
    const button = choice && get("trial").querySelector(`[data-rating=${choice}]`);
    if (button) button.click();  // a disabled button takes no click
  });
  count();
  results();
  return { ready: () => { if (song) Player.use(song); }, wilson };
})();
