// What every page needs: a beat by which it brings itself up to date while somebody looks, and word when it cannot.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const link = document.getElementById("link");
  const live = () => document.querySelector("[data-live]");

  const beat = () => {
    if (!document.hidden && live()) document.body.dispatchEvent(new Event("tick"));
  };
  setInterval(beat, EVERY_MS);
  document.addEventListener("visibilitychange", beat);

  const say = (away) => {
    const text = away ? "not connected" : "live";
    if (!link || link.textContent === text) return;
    link.textContent = text;
    link.classList.toggle("away", away);
  };
  window.fedbusLink = say;
  if (live()) say(false);
  document.addEventListener("htmx:after:request", (event) => say(!((event.detail?.ctx?.response?.status ?? 0) < 500)));
  document.addEventListener("htmx:error", () => say(true));
})();
