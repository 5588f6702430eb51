// The page: its language, and the three parts that fill it.

import { renew, showGifts } from "./gifts.js";
import { find, hush, memory, notice, settled, user } from "./here.js";
import { showOrders } from "./orders.js";
import { showPacket } from "./packet.js";
import { say, speak } from "./words.js";

function translate() {
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  document.title = say("title");
  find("who").textContent = say("guest", user);
  find("language").textContent = say("other");
}

function show() {
  translate();
  showGifts();
  showOrders();
  showPacket();
}

let language = speak(memory.read("language", navigator.language.startsWith("zh") ? "zh" : "en"));
find("language").addEventListener("click", () => {
  language = speak(language === "en" ? "zh" : "en");
  memory.write("language", language);
  // It speaks the other language; what still troubles is said again at the next try.
  hush();
  show();
});
addEventListener("offline", () => notice("offline", say("offline")));
addEventListener("online", () => settled("offline"));
document.addEventListener("visibilitychange", () => document.hidden || renew());
show();
