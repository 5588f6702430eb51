// A person's gifts, from the claim to the game.

import { insist, pause } from "./call.js";
import { ask, badge, find, make, memory, notice, settled, user } from "./here.js";
import { nameOf, say, span } from "./words.js";

const KEPT = 20;
const STEPS = ["step_accepted", "step_delivering", "step_delivered"];
const OPEN = new Set(["ACCEPTED", "DELIVERING", "RETRY_WAIT", "INTENT"]);
// Where a state stands among the steps.
const AT = { INTENT: 0, ACCEPTED: 0, DELIVERING: 1, RETRY_WAIT: 1, DEAD: 1, DELIVERED: 2 };

let orders = memory.read("orders", []).filter((order) => order.user === user);
const followed = new Set();

export function keep(order) {
  orders = [{ state: "ACCEPTED", ...order }, ...orders.filter((known) => known.order_no !== order.order_no)].slice(0, KEPT);
  memory.write("orders", orders);
}

export function showOrders() {
  find("mine").hidden = orders.length === 0;
  find("orders").replaceChildren(...orders.map((order) => make("li", {}, card(order))));
  for (const order of orders) if (OPEN.has(order.state)) follow(order);
}

// Takes in what is known of an order, and asks after it until it has arrived.
export async function follow(answer) {
  learn(answer);
  if (followed.has(answer.order_no) || !OPEN.has(answer.state ?? "ACCEPTED")) return;
  followed.add(answer.order_no);
  for (let quiet = 0; ; ) {
    await pause(Math.min(15000, 900 * 1.25 ** quiet) * (0.8 + 0.4 * Math.random()));
    if (document.hidden) continue;
    const now = await insist(() => ask("GET", `/v1/claims/${answer.order_no}`), () => notice("orders", say("unreachable"), true));
    if (!now.state) {
      // Who is not found yet is asked after again: an intent becomes an order when its home is back.
      quiet += 1;
      continue;
    }
    settled("orders");
    learn(now);
    if (!OPEN.has(now.state)) break;
    quiet += 1;
  }
  followed.delete(answer.order_no);
}

function learn({ order_no, state, eta_s, attempts, code }) {
  const order = orders.find((known) => known.order_no === order_no);
  if (!order) return;
  Object.assign(order, { state: code === "INTENT" ? "INTENT" : (state ?? order.state), eta_s, attempts });
  memory.write("orders", orders);
  find("mine").hidden = false;
  find("orders").replaceChildren(...orders.map((known) => make("li", {}, card(known))));
}

function card(order) {
  const at = AT[order.state] ?? 0;
  const steps = STEPS.map((key, step) => {
    const className = step < at || order.state === "DELIVERED" ? "done" : step === at ? "now" : "";
    return make("li", { className, textContent: say(key) });
  });
  const tag = order.state === "DELIVERED" ? null
    : order.state === "DEAD" ? null
    : order.eta_s ? make("span", { className: "tag few", textContent: say("eta", span(order.eta_s)) }) : null;
  const note = { RETRY_WAIT: "retry_wait", DEAD: "dead", INTENT: "intent" }[order.state];
  return make("article", { className: "order" },
    make("div", { className: "head" },
      make("span", {}, make("b", { textContent: nameOf(order) }), make("span", { className: "game", textContent: order.game_id })),
      tag ?? badge(order.game_id)),
    make("ol", { className: "steps" }, ...steps),
    note ? make("p", { className: "note", textContent: say(note) }) : null,
    make("div", { className: "number", textContent: order.order_no }));
}
