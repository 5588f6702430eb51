// The list of gifts, the choice of a character, and the claim.

import { insist, pause } from "./call.js";
import { follow, keep } from "./orders.js";
import { ask, badge, coupon, find, hush, make, memory, notice, settled, user } from "./here.js";
import { nameOf, say, sayCode, span } from "./words.js";

let list = null;
let is_loading = false;

export function showGifts() {
  if (list) draw();
  else ghosts();
  renew();
}

// Asks for the list, where nobody does already.
export function renew() {
  if (!is_loading) load();
}

function ghosts() {
  find("gifts").replaceChildren(...Array.from({ length: 4 }, () => make("li", { className: "ghost" })));
}

// Never gives up: a list that cannot be had is asked for again, ever more slowly, and the last one serves meanwhile.
async function load() {
  is_loading = true;
  for (let round = 0; ; round++) {
    const answer = await insist(() => ask("GET", "/v1/gifts"), () => round === 0 && useKept());
    if (Array.isArray(answer.items)) {
      list = { ...answer, at: Date.now() };
      memory.write("list", list);
      settled("list");
      break;
    }
    useKept();
    notice("list", say(list ? "unreachable" : "no_list"), true);
    await pause(Math.min(30000, 3000 * (round + 1)));
  }
  is_loading = false;
  draw();
}

function useKept() {
  const kept = memory.read("list", null);
  if (!Array.isArray(kept?.items)) return;
  list = { ...kept, is_kept: true };
  draw();
}

function draw() {
  const note = find("gifts-note");
  note.hidden = true;
  if (list.is_kept) {
    Object.assign(note, { hidden: false, textContent: say("kept_list", new Date(list.at).toLocaleTimeString()) });
  } else if ((list.degraded ?? []).length > 0) {
    Object.assign(note, { hidden: false, textContent: say("default_list") });
  }
  find("gifts").replaceChildren(...list.items.map((gift) => make("li", {}, card(gift))));
  find("gifts").setAttribute("aria-busy", "false");
}

function card(gift) {
  const words = make("span", {}, make("b", { textContent: nameOf(gift) }), make("span", { className: "game", textContent: gift.game_id }));
  const tag = make("span", { className: `tag ${gift.stock_hint}`, textContent: say(gift.stock_hint) });
  const button = make("button", { type: "button", className: "gift" }, badge(gift.game_id), words, tag);
  button.disabled = gift.stock_hint === "none";
  button.addEventListener("click", () => choose(gift));
  return button;
}

async function choose(gift) {
  const dialog = find("choice");
  find("choice-title").textContent = say("pick", nameOf(gift));
  find("choice-note").hidden = true;
  find("roles").replaceChildren(make("div", { className: "ghost" }));
  const claim = find("claim");
  Object.assign(claim, { disabled: true, textContent: say("claim") });
  dialog.showModal();
  const answer = await ask("GET", `/v1/zones?game_id=${encodeURIComponent(gift.game_id)}`);
  if (!dialog.open) return;
  const roles = Array.isArray(answer.roles) ? answer.roles : [];
  // Without the zones' answer a person still knows where they play.
  const freshness = answer.status === 200 ? answer.freshness : "manual";
  const note = { stale: "stale_roles", manual: "manual_roles" }[freshness];
  if (note) Object.assign(find("choice-note"), { hidden: false, textContent: say(note) });
  const chosen = roles.length > 0 ? pickRole(roles) : writeRole(answer.zones ?? []);
  claim.disabled = false;
  claim.onclick = () => send(gift, chosen(), claim, dialog);
}

function pickRole(roles) {
  const rows = roles.map((role, at) => {
    const input = make("input", { type: "radio", name: "role", value: at, checked: at === 0 });
    const words = make("span", {}, make("b", { textContent: role.name }), ` ${role.zone_id}, ${say("level", role.level)}`);
    return make("label", {}, input, words);
  });
  find("roles").replaceChildren(...rows);
  return () => roles[Number(find("roles").querySelector("input:checked").value)];
}

function writeRole(zones) {
  const zone = zones.length > 0
    ? make("select", {}, ...zones.map((z) => make("option", { value: z.zone_id, textContent: z.name })))
    : make("input", { maxLength: 64, autocomplete: "off" });
  const role = make("input", { maxLength: 64, autocomplete: "off" });
  const field = (key, input) => make("label", { className: "field" }, say(key), input);
  find("roles").replaceChildren(field("zone", zone), field("role", role));
  return () => ({ zone_id: zone.value.trim(), role_id: role.value.trim() });
}

async function send(gift, { zone_id, role_id }, button, dialog) {
  const note = find("choice-note");
  if (!zone_id || !role_id) {
    Object.assign(note, { hidden: false, textContent: say("bad_role") });
    return;
  }
  Object.assign(button, { disabled: true, textContent: say("claiming") });
  // The same wish has the same key, whoever asks it how often: also after a reload of the page.
  const wish = { packet_id: coupon, gift_id: gift.gift_id, zone_id, role_id, idempotency_key: `${coupon}.${gift.gift_id}`.slice(0, 64) };
  const waiting = (answer, ms) => {
    const why = answer.code === "TIMEOUT" || answer.code === "DEADLINE" ? say("slow_network") : sayCode(answer);
    Object.assign(note, { hidden: false, textContent: `${why} ${say("again_in", span(ms / 1000))}` });
  };
  const answer = await insist(() => ask("POST", "/v1/claims", wish), waiting);
  Object.assign(button, { disabled: false, textContent: say("claim") });
  if (answer.order_no) {
    dialog.close();
    const known = list.items.find((item) => item.gift_id === (answer.gift_id ?? gift.gift_id)) ?? gift;
    keep({ order_no: answer.order_no, title: known.title, titles: known.titles, game_id: known.game_id, user });
    if (answer.code === "ALREADY_CLAIMED") notice("claim", sayCode(answer));
    else hush();
    follow(answer);
    find("mine").scrollIntoView({ behavior: "smooth", block: "start" });
  } else {
    const text = answer.retryable ? say("gave_up") : sayCode(answer);
    Object.assign(note, { hidden: false, textContent: text });
  }
}
