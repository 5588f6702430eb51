// Every word on the page, in English and Chinese. A code's words are found by the `msg_key` of the answer.

const WORDS = {
  en: {
    other: "中文",
    title: "Spring Festival gifts",
    subtitle: "Pick a gift, open a red packet, and watch it arrive.",
    guest: "Hello, {0}",
    gifts_title: "Gifts for you",
    packet_title: "Red packet",
    mine_title: "Your gifts",
    plenty: "Plenty",
    few: "Nearly gone",
    none: "Gone",
    default_list: "Recommendations are taking a rest. Here are all gifts, in our usual order.",
    kept_list: "We cannot reach the list right now. This is the one from {0}; what you pick is checked again.",
    no_list: "The list does not come just now. We keep trying.",
    pick: "{0}: which character?",
    stale_roles: "The game answers slowly: these are the characters that we remember.",
    manual_roles: "The game does not answer, so please tell us yourself.",
    zone: "Server",
    role: "Character",
    level: "level {0}",
    claim: "Claim it",
    claiming: "Claiming …",
    close: "Not now",
    accepted_at: "{0}",
    step_accepted: "Claimed",
    step_delivering: "On its way",
    step_delivered: "Arrived",
    eta: "Arrives in about {0}",
    seconds: "{0} s",
    minutes: "{0} min",
    hours: "{0} h",
    retry_wait: "The game is busy. We try again by ourselves; your gift is safe.",
    dead: "This needs a person's help. We have been told; your gift is not lost.",
    intent: "Your home datacenter is out of reach. Your claim is kept safely and will be settled when it is back.",
    again_in: "Again in {0}",
    slow_network: "That took too long. We ask again with the same number: you will not claim twice.",
    offline: "You are offline. We go on when you are back.",
    unreachable: "We cannot be reached right now. Trying again …",
    gave_up: "Still no answer. Nothing is lost: please try again in a moment.",
    back: "And we are back.",
    open_packet: "Open",
    best_wishes: "Best wishes!",
    opened: "You got it as number {0}",
    shares: "{0} of {1} opened, ¥{2} of ¥{3}",
    you: "You",
    user: "User {0}",
    send: "Send a red packet",
    total: "In all (¥)",
    count: "Shares",
    sent: "It is ready. Send this link to your friends:",
    packet_gone: "Too late: everything in it is gone.",
    packet_expired: "This red packet has expired; what was left went back to its sender.",
    ok: "Done.",
    accepted: "Your gift is on its way.",
    already_claimed: "You have claimed this already. Here it is.",
    sold_out: "All of these are gone.",
    expired: "This is over.",
    not_started: "Not yet: it begins soon.",
    rate_limited: "A little slower, please.",
    overloaded: "Very many people are here. You keep your place; please wait a moment.",
    deadline: "This took too long. Ask again; you will not claim twice.",
    not_eligible: "This is not open to you.",
    bad_role: "Please choose a server and a character.",
    key_conflict: "You have claimed another gift with this packet.",
    pending: "Accepted; on its way.",
    bad_request: "This was not understood.",
    not_found: "There is nothing by that name.",
    unfunded: "There is not enough in your account for this.",
    unavailable: "Not possible right now. Nothing was lost; please try again in a moment.",
  },
  zh: {
    other: "English",
    title: "新春好礼",
    subtitle: "选礼包，拆红包，看着它送到。",
    guest: "你好，{0}",
    gifts_title: "为你准备的礼包",
    packet_title: "红包",
    mine_title: "我的礼包",
    plenty: "充足",
    few: "所剩不多",
    none: "已领完",
    default_list: "推荐服务正在休息，先按默认顺序为你列出全部礼包。",
    kept_list: "暂时取不到列表，这是 {0} 的列表；领取时会再次核对。",
    no_list: "列表暂时取不到，我们会继续尝试。",
    pick: "{0}：送到哪个角色？",
    stale_roles: "游戏响应较慢，这是我们记得的角色。",
    manual_roles: "游戏没有响应，请手动填写。",
    zone: "区服",
    role: "角色",
    level: "{0} 级",
    claim: "领取",
    claiming: "领取中…",
    close: "以后再说",
    step_accepted: "已领取",
    step_delivering: "发放中",
    step_delivered: "已到账",
    eta: "预计 {0} 内到账",
    seconds: "{0} 秒",
    minutes: "{0} 分钟",
    hours: "{0} 小时",
    retry_wait: "游戏繁忙，我们会自动重试，你的礼包不会丢。",
    dead: "需要人工处理，我们已收到通知，你的礼包不会丢。",
    intent: "你所属的数据中心暂时无法连接。领取请求已安全保存，恢复后自动处理。",
    again_in: "{0} 后可再试",
    slow_network: "等待超时，正以同一编号再次查询，不会重复领取。",
    offline: "网络已断开，恢复后继续。",
    unreachable: "暂时连接不上，正在重试…",
    gave_up: "仍未收到答复。什么都没有丢，请稍后再试。",
    back: "已恢复。",
    open_packet: "開",
    best_wishes: "恭喜发财，大吉大利！",
    opened: "你是第 {0} 位",
    shares: "已领 {0}/{1} 个，¥{2}/¥{3}",
    you: "我",
    user: "用户 {0}",
    send: "发红包",
    total: "总金额（元）",
    count: "个数",
    sent: "红包已准备好，把链接发给朋友：",
    packet_gone: "手慢了，红包派完了。",
    packet_expired: "红包已过期，余额已退回。",
    ok: "完成。",
    accepted: "礼包正在路上。",
    already_claimed: "你已经领取过，在这里。",
    sold_out: "已全部领完。",
    expired: "活动已结束。",
    not_started: "活动即将开始。",
    rate_limited: "请稍慢一点。",
    overloaded: "现在人很多，请稍候片刻。",
    deadline: "等待超时，请再试一次，不会重复领取。",
    not_eligible: "此项不对你开放。",
    bad_role: "请选择区服和角色。",
    key_conflict: "你已用此券领取了另一个礼包。",
    pending: "已受理，发放中。",
    bad_request: "请求无法识别。",
    not_found: "没有找到。",
    unfunded: "你的余额不足。",
    unavailable: "暂时无法完成。什么都没有丢，请稍后再试。",
  },
};

let language = "en";

export const languages = Object.keys(WORDS);

export function speak(wanted) {
  language = languages.includes(wanted) ? wanted : "en";
  document.documentElement.lang = language;
  return language;
}

// The words for `key`, with `{0}`, `{1}` .. filled in; nothing where there are none.
export function say(key, ...values) {
  const text = WORDS[language][key] ?? WORDS.en[key] ?? "";
  return text.replace(/\{(\d)\}/g, (_, at) => values[at] ?? "");
}

// What a person is told of an answer: in their language where the page knows the key, else in the server's words.
export const sayCode = (answer) => say(answer.msg_key) || answer.message || say("unavailable");

export function span(seconds) {
  if (seconds < 90) return say("seconds", Math.max(1, Math.ceil(seconds)));
  return seconds < 5400 ? say("minutes", Math.ceil(seconds / 60)) : say("hours", Math.ceil(seconds / 3600));
}

// A gift's name in the language of the page, else as the server calls it.
export const nameOf = (gift) => gift.titles?.[language] ?? gift.title;

export const yuan = (fen) => `${Math.floor(fen / 100)}.${String(fen % 100).padStart(2, "0")}`;
