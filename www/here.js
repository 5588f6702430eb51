// What all parts of the page share: elements, memory, who is here, and the notice at the top.

import { call } from "./call.js";
import { say } from "./words.js";

export const find = (id) => document.getElementById(id);

// An element with these properties and children; text is always text, never markup.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// What outlives a visit. A browser that keeps nothing (private windows, full disks) costs the memory, not the page.
export const memory = {
  read(key, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(`springtide.${key}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  write(key, value) {
    try {
      localStorage.setItem(`springtide.${key}`, JSON.stringify(value));
    } catch {
      // Then this visit is all there is.
    }
  },
};

// Who is here: whoever embeds the page says so; a guest gets a name of their own, for good.
const asked = new URLSearchParams(location.search);
const guest = () => `guest-${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
export const user = asked.get("user") ?? memory.read("user", null) ?? guest();
memory.write("user", user);
export const coupon = asked.get("coupon") ?? "spring";

export const ask = (method, path, body) => call(user, method, path, body);

// One line at the top that says what is going on; `key` names the trouble, so that only who raised it ends it.
let trouble = null;
let fading = 0;
export function notice(key, text, is_bad = false) {
  clearTimeout(fading);
  trouble = key;
  const line = find("notice");
  Object.assign(line, { textContent: text, hidden: false, className: is_bad ? "bad" : "" });
}
export function settled(key) {
  if (trouble !== key) return;
  notice(null, say("back"));
  fading = setTimeout(() => (find("notice").hidden = true), 2500);
}
export function hush() {
  trouble = null;
  find("notice").hidden = true;
}

// The sign of a game, in a colour of its own.
export function badge(game) {
  const sign = make("span", { className: "badge", textContent: game.slice(0, 1).toUpperCase(), ariaHidden: "true" });
  const hue = [...game].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  sign.style.setProperty("--hue", hue);
  return sign;
}
