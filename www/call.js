// One request, and a request until it is answered: bounded, jittered, and always under the same key.

const PATIENCE_MS = 5000;
const TRIES = 6;
const PAUSE_MS = 400;
const LONGEST_MS = 8000;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Full jitter: anything up to the wait, so that those who failed together do not come back together.
const jitter = (ms) => ms / 2 + (Math.random() * ms) / 2;

// The answer's envelope with `status`. Where there is none: `code` NETWORK, TIMEOUT or GARBAGE, always retryable.
export async function call(user, method, path, body) {
  const clock = new AbortController();
  const timer = setTimeout(() => clock.abort(), PATIENCE_MS);
  // The edge has words of its own, in the language that is asked for.
  const headers = { "x-user-id": user, "accept-language": document.documentElement.lang };
  if (body !== undefined) headers["content-type"] = "application/json";
  // An edge may have to know the key to find the right home, and looks into no body.
  if (body?.idempotency_key) headers["idempotency-key"] = body.idempotency_key;
  try {
    const response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: clock.signal, cache: "no-cache",
    });
    const wait = Number(response.headers.get("retry-after")) * 1000 || null;
    const answer = await response.json().catch(() => null);
    if (answer && typeof answer.code === "string") return { retry_after_ms: wait, ...answer, status: response.status };
    // The edge itself, or something between us and it.
    const known = { 429: ["RATE_LIMITED", "rate_limited"], 503: ["OVERLOADED", "overloaded"], 404: ["NOT_FOUND", "not_found"] };
    const [code, msg_key] = known[response.status] ?? ["GARBAGE", "unavailable"];
    return { code, msg_key, status: response.status, retryable: response.status !== 404, retry_after_ms: wait };
  } catch {
    const is_late = clock.signal.aborted;
    return { code: is_late ? "TIMEOUT" : "NETWORK", msg_key: is_late ? "deadline" : "unavailable", status: 0, retryable: true };
  } finally {
    clearTimeout(timer);
  }
}

// Asks until there is an answer that asking again cannot better, or it has been asked often enough. `waiting(answer, ms)` is
// told of every wait. Only for requests that may be repeated: reads, and claims under one key.
export async function insist(ask, waiting = () => {}) {
  for (let tried = 1; ; tried++) {
    const answer = await ask();
    const is_done = answer.status >= 200 && answer.status < 300;
    if (is_done || !answer.retryable || tried === TRIES) return answer;
    const least = Math.min(answer.retry_after_ms ?? 0, 30000);
    const ms = least + jitter(Math.min(LONGEST_MS, PAUSE_MS * 2 ** tried));
    waiting(answer, ms);
    await Promise.race([pause(ms), online()]);
  }
}

// Settles when the connection comes back; never where it is there.
function online() {
  return new Promise((done) => {
    if (!navigator.onLine) addEventListener("online", done, { once: true });
  });
}
