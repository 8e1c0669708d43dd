"use strict";
// The player of a song (song.html.j2): versions switched at the same playhead, sung words highlighted.
const Player = (() => {
  const JUMP = 5;
  const format = (s) => `${Math.floor(s / 60)}:${(Math.floor(s * 10) % 600 / 10).toFixed(1).padStart(4, "0")}`;
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  const songs = new Set();
  let current = null;

  class Song {
    constructor(root) {
      const find = (query) => root.querySelector(query);
      Object.assign(this, { root, total: Number(root.dataset.seconds), at: 0, playing: false, track: null, lit: null });
      Object.assign(this, { button: find(".play"), seekbar: find(".seek"), now: find(".now"), note: find(".note") });
      this.name = this.button.getAttribute("aria-label").replace("Play ", "");
      this.box = find(".words");
      this.words = [...root.querySelectorAll(".words [data-start]")].map((span) => this.word(span));
      this.tracks = [...root.querySelectorAll(".track")].map((figure) => this.prepare(figure));
      if (find(".attention")) this.lane(find(".attention .lane"));
      const ready = this.tracks.filter((track) => track.audio);
      if (ready.length) this.choose(ready[ready.length - 1]);  // the finest level there is
      this.button.addEventListener("click", () => this.toggle());
      this.seekbar.addEventListener("input", () => this.seek(Number(this.seekbar.value)));
      for (const kind of ["focusin", "pointerdown"]) root.addEventListener(kind, () => { current = this; });
    }
    word(span) {
      span.addEventListener("click", () => this.seek(Number(span.dataset.start)));
      return { span, start: Number(span.dataset.start), end: Number(span.dataset.end), row: span.dataset.row };
    }
    prepare(figure) {
      const track = { figure, audio: figure.querySelector("audio"), pick: figure.querySelector(".pick"),
                      seconds: Number(figure.dataset.seconds) };
      if (!track.audio) return track;
      track.audio.controls = false;
      track.audio.addEventListener("ended", () => { if (track === this.track) this.pause(); });
      track.audio.addEventListener("error", () => this.fail(track));
      track.pick.addEventListener("click", () => this.choose(track));
      if (figure.querySelector(".lane")) this.lane(figure.querySelector(".lane"), track);
      return track;
    }
    lane(lane, track = null) {
      const bubble = lane.querySelector("output");
      const part = (event) => {
        const box = lane.getBoundingClientRect();
        return clamp((event.clientX - box.left) / box.width, 0, 1);
      };
      lane.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        lane.setPointerCapture(event.pointerId);
        this.choose(track);
        this.seek(part(event) * this.total);
      });
      lane.addEventListener("pointermove", (event) => {
        const at = part(event);
        lane.classList.toggle("hovered", event.pointerType === "mouse");
        lane.style.setProperty("--hover", clamp(at, 0.04, 0.96));
        bubble.textContent = format(at * this.total);
        if (event.buttons & 1 && lane.hasPointerCapture(event.pointerId)) this.seek(at * this.total);
      });
      lane.addEventListener("pointerleave", () => lane.classList.remove("hovered"));
    }
    choose(track) {
      if (!track || !track.audio || track === this.track) return;
      const before = this.track, going = this.playing;
      if (before) {
        if (going && !before.audio.seeking) this.at = before.audio.currentTime;
        before.audio.pause();
      }
      this.track = track;
      this.seek(this.at);
      for (const other of this.tracks) {
        other.figure.classList.toggle("active", other === track);
        other.pick.setAttribute("aria-pressed", String(other === track));
      }
      if (going && this.at < track.seconds) this.play();
      else this.show(false);
    }
    seek(seconds) {
      if (!this.track) return;
      this.at = clamp(seconds, 0, this.total);
      this.track.audio.currentTime = Math.min(this.at, this.track.seconds);
      this.draw();
    }
    play() {
      if (!this.track) return;
      for (const other of songs) if (other !== this) other.pause();
      if (this.at >= this.track.seconds - 0.05) this.seek(0);
      const track = this.track;
      track.heard = true;
      this.show(true);
      this.note.textContent = "";
      track.audio.play().catch((error) => { if (error.name !== "AbortError") this.fail(track); });
      cancelAnimationFrame(this.frame);
      const follow = () => {
        if (!this.playing) return;
        if (!this.track.audio.seeking) this.at = this.track.audio.currentTime;
        this.draw();
        this.frame = requestAnimationFrame(follow);
      };
      follow();
    }
    pause() {
      if (!this.track || !this.playing) return;
      this.track.audio.pause();
      this.at = this.track.audio.currentTime;
      this.show(false);
      this.draw();
    }
    toggle() { if (this.playing) this.pause(); else this.play(); }
    close() {
      this.pause();
      songs.delete(this);
      if (current === this) current = songs.values().next().value || null;
    }
    fail(track) {
      if (track !== this.track || !this.root.isConnected) return;
      this.show(false);
      this.note.textContent = `${track.audio.getAttribute("src")} could not be played: is it beside this page?`;
    }
    show(playing) {
      this.playing = playing;
      this.root.classList.toggle("playing", playing);
      this.button.setAttribute("aria-label", `${playing ? "Pause" : "Play"} ${this.name}`);
      this.root.dispatchEvent(new Event("playing"));
    }
    draw() {
      this.root.style.setProperty("--at", this.total ? this.at / this.total : 0);
      this.now.textContent = format(this.at);
      this.seekbar.value = this.at;
      this.seekbar.setAttribute("aria-valuetext", `${format(this.at)} of ${format(this.total)}`);
      this.light(this.words.findLast((word) => word.start <= this.at && this.at < word.end));
    }
    light(word) {
      if (word === this.lit) return;
      if (this.lit) this.lit.span.classList.remove("lit");
      this.lit = word;
      this.root.classList.toggle("singing", Boolean(word));
      if (!word) return;
      word.span.classList.add("lit");
      this.root.style.setProperty("--row", word.row);
      const line = word.span.offsetTop, box = this.box;  // scrolls the box alone, not the page
      if (line < box.scrollTop || line + 40 > box.scrollTop + box.clientHeight) box.scrollTop = line - box.clientHeight / 3;
    }
  }

  document.addEventListener("keydown", (event) => {
    if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = event.target instanceof Element ? event.target : document.body;
    if (inside.closest("input:not([type=range]), select, textarea")) return;
    const pressable = inside.closest("button:not([aria-pressed=true]), summary, a");
    if (event.key === " " && !pressable) current.toggle();
    else if (event.key === "ArrowLeft") current.seek(current.at - JUMP);
    else if (event.key === "ArrowRight") current.seek(current.at + JUMP);
    else if (/^[1-9]$/.test(event.key)) current.choose(current.tracks[Number(event.key) - 1]);
    else return;
    event.preventDefault();
  });

  const open = (root) => {
    const song = new Song(root);
    songs.add(song);
    current = current || song;
    return song;
  };
  return { open, format, use: (song) => { current = song; } };
})();
