// A red packet of money: send one, open one, see who was lucky.

import { insist } from "./call.js";
import { ask, find, hush, make, memory, notice, user } from "./here.js";
import { say, sayCode, yuan } from "./words.js";

const id = new URLSearchParams(location.search).get("packet");
const path = (rest = "") => `/v1/packets/${encodeURIComponent(id)}${rest}`;

export function showPacket() {
  if (!id) return void find("envelope").replaceChildren(form());
  const mine = memory.read(`packet.${id}.${user}`, null);
  if (mine) reveal(mine);
  else find("envelope").replaceChildren(sealed());
}

function sealed() {
  const coin = make("button", { type: "button", className: "coin", textContent: "開", ariaLabel: say("open_packet") });
  const box = make("div", { className: "envelope" }, make("b", { textContent: say("best_wishes") }), coin);
  coin.addEventListener("click", () => open(coin));
  return box;
}

// Grab, then open. Both may be asked again as often as it takes: a person has one share.
async function open(coin) {
  coin.disabled = true;
  coin.classList.add("turning");
  const waiting = (answer) => notice("packet", sayCode(answer), answer.status === 0);
  const grabbed = await insist(() => ask("POST", path("/grab"), {}), waiting);
  const opened = grabbed.grab_token
    ? await insist(() => ask("POST", path("/open"), { grab_token: grabbed.grab_token, idempotency_key: id }), waiting)
    : grabbed;
  coin.classList.remove("turning");
  coin.disabled = false;
  if (Number.isInteger(opened.amount_fen)) {
    hush();
    const mine = { amount_fen: opened.amount_fen, rank: opened.rank };
    memory.write(`packet.${id}.${user}`, mine);
    return reveal(mine);
  }
  const gone = { SOLD_OUT: "packet_gone", EXPIRED: "packet_expired" }[opened.code];
  notice("packet", gone ? say(gone) : opened.retryable ? say("gave_up") : sayCode(opened), true);
  if (gone) await lucky(make("div", { className: "envelope" }, make("b", { textContent: say(gone) })));
}

async function reveal({ amount_fen, rank }) {
  const amount = make("div", { className: "amount" }, make("small", { textContent: "¥ " }), yuan(amount_fen));
  const box = make("div", { className: "envelope" }, make("b", { textContent: say("best_wishes") }), amount,
    make("span", { textContent: say("opened", rank) }));
  find("envelope").replaceChildren(box);
  await lucky(box);
}

// Who had how much: pleasant to have, so its failing shows nothing.
async function lucky(box) {
  const packet = await ask("GET", path());
  if (packet.status !== 200) return;
  const rows = (packet.shares ?? []).map((share) =>
    make("li", { className: share.user_id === user ? "me" : "" },
      make("span", { textContent: share.user_id === user ? say("you") : say("user", share.user_id) }),
      make("span", { textContent: `¥ ${yuan(share.amount_fen)}` })));
  const sum = say("shares", packet.opened, packet.count, yuan(packet.opened_fen), yuan(packet.total_fen));
  find("envelope").replaceChildren(box, make("p", { className: "note", textContent: sum }), make("ol", { className: "lucky" }, ...rows));
}

function form() {
  const number = (value, min, max, step) => make("input", { type: "number", required: true, value, min, max, step, inputMode: "decimal" });
  const [total, count] = [number("8.88", "0.01", "20000", "0.01"), number("8", "1", "500", "1")];
  const button = make("button", { className: "gold", textContent: say("send") });
  const box = make("form", { className: "send" }, make("label", {}, say("total"), total), make("label", {}, say("count"), count), button);
  box.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const wish = {
      total_fen: Math.round(Number(total.value) * 100), count: Number(count.value), mode: "random", expire_s: 86400,
      idempotency_key: crypto.getRandomValues(new Uint32Array(4)).join("-"),
    };
    const answer = await insist(() => ask("POST", "/v1/packets", wish), (told) => notice("packet", sayCode(told)));
    button.disabled = false;
    if (!answer.packet_id) return notice("packet", answer.retryable ? say("gave_up") : sayCode(answer), true);
    hush();
    const link = new URL(location.href);
    link.search = `?packet=${encodeURIComponent(answer.packet_id)}`;
    box.after(make("p", { className: "note link" }, say("sent"), " ", make("a", { href: link.href, textContent: link.href })));
  });
  return box;
}
