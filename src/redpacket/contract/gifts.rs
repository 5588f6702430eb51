//! The calls of a gift's way: list, character, claim, delivery.

use super::shape::{Field, Shape, has, may};
use super::{Gives, Operation, User};
use crate::redpacket::model::Code;

/// A gift in a list.
pub(super) const GIFT: &[Field] = &[
    has("gift_id", Shape::Id, "Its name for machines."),
    has("game_id", Shape::Id, "The game that it is for."),
    has("title", Shape::Text, "Its name for people."),
    may("titles", Shape::Tongues, "The same in other languages, by their tags."),
    has("stock_hint", Shape::Word(&["plenty", "few", "none"]), "How many there were to begin with, roughly."),
    has("rank", Shape::Whole(1), "Its place in this list."),
];

/// A character.
pub(super) const ROLE: &[Field] = &[
    has("zone_id", Shape::Id, "On which server."),
    has("role_id", Shape::Id, "Its name for machines."),
    has("name", Shape::Text, "Its name for people."),
    has("level", Shape::Whole(0), "How far it has come."),
];

/// A server of a game.
pub(super) const ZONE: &[Field] = &[
    has("zone_id", Shape::Id, "Its name for machines."),
    has("game_id", Shape::Id, "Its game."),
    has("name", Shape::Text, "Its name for people."),
];

/// A recommendation.
pub(super) const TASTE: &[Field] = &[
    has("gift_id", Shape::Id, "The gift."),
    has("score", Shape::Share, "How much the user may like it."),
    has("registered", Shape::Flag, "Whether the user plays its game already."),
];

/// An order, to the user whose it is.
const ORDER: &[Field] = &[
    has("order_no", Shape::OrderNo, "Its number: the same for the same claim, for ever."),
    has(
        "state",
        Shape::Word(&["ACCEPTED", "DELIVERING", "RETRY_WAIT", "DELIVERED", "DEAD", "COMPENSATED"]),
        "Where it stands.",
    ),
    has("activity_id", Shape::Id, "The campaign."),
    has("packet_id", Shape::Id, "The coupon."),
    has("gift_id", Shape::Id, "The gift."),
    has("zone_id", Shape::Id, "The server."),
    has("role_id", Shape::Id, "The character."),
    has("attempts", Shape::Whole(0), "How often a worker took it."),
    has("accepted_at", Shape::Moment, "When it was accepted."),
    has("updated_at", Shape::Moment, "When it moved last."),
    may("eta_s", Shape::Whole(0), "How long the delivery may take, in s."),
];

/// An order that was made before, from memory or from a process that is not its home: how it stands may be left out.
const KNOWN: &[Field] = &[
    has("order_no", Shape::OrderNo, "Its number: the same for the same claim, for ever."),
    may(
        "state",
        Shape::Word(&["ACCEPTED", "DELIVERING", "RETRY_WAIT", "DELIVERED", "DEAD", "COMPENSATED"]),
        "Where it stands; ask for it by its number where this is left out.",
    ),
    has("activity_id", Shape::Id, "The campaign."),
    has("packet_id", Shape::Id, "The coupon."),
    has("gift_id", Shape::Id, "The gift."),
    has("zone_id", Shape::Id, "The server."),
    has("role_id", Shape::Id, "The character."),
    may("attempts", Shape::Whole(0), "How often a worker took it."),
    may("accepted_at", Shape::Moment, "When it was accepted."),
    may("updated_at", Shape::Moment, "When it moved last."),
    may("asked_at", Shape::Moment, "When it was asked for, where its home could not be reached then."),
    may("settled_at", Shape::Moment, "When its home has decided, in that case."),
    may("eta_s", Shape::Whole(0), "How long the delivery may take, in s."),
];

/// A claim that was noted far from its home, and what home said to it if that is known.
const INTENT: &[Field] = &[
    has("order_no", Shape::OrderNo, "The number of the order that may come of it."),
    has("state", Shape::Word(&["INTENT", "REFUSED"]), "Whether home has still to decide."),
    has("activity_id", Shape::Id, "The campaign."),
    has("packet_id", Shape::Id, "The coupon."),
    has("gift_id", Shape::Id, "The gift."),
    has("zone_id", Shape::Id, "The server."),
    has("role_id", Shape::Id, "The character."),
    has("asked_at", Shape::Moment, "When it was asked for: home judges as of then."),
    may("settled_at", Shape::Moment, "When home has decided."),
];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/v1/gifts",
        name: "listGifts",
        about: "Gifts, in the order that the user may like; in the default order where nobody can say.",
        service: "gift-list",
        user: User::May,
        asks: &[],
        body: &[],
        gives: &[Gives {
            codes: &[Code::Ok],
            fields: &[
                has("list_version", Shape::Text, "Changes with the catalogue."),
                has("source", Shape::Word(&["personal", "default"]), "Whose order it is."),
                has("items", Shape::List(&Shape::Named("Gift")), "The gifts."),
            ],
        }],
        refuses: &[Code::BadRequest],
    },
    Operation {
        method: "get",
        path: "/v1/zones",
        name: "listRoles",
        about: "The user's characters in a game, as fresh as the game allows.",
        service: "zones",
        user: User::Must,
        asks: &[has("game_id", Shape::Id, "The game.")],
        body: &[],
        gives: &[Gives {
            codes: &[Code::Ok],
            fields: &[
                has(
                    "freshness",
                    Shape::Word(&["fresh", "stale", "manual"]),
                    "Whether the game said so now, before, or not at all.",
                ),
                has("roles", Shape::List(&Shape::Named("Role")), "The characters; none where nobody knows."),
                has("zones", Shape::List(&Shape::Named("Zone")), "The servers, for who has to choose by hand."),
            ],
        }],
        refuses: &[Code::BadRequest, Code::NotFound],
    },
    Operation {
        method: "get",
        path: "/v1/recommend",
        name: "recommend",
        about: "Gifts that a user may like, best first. For gift-list; clients do without it.",
        service: "recommend",
        user: User::May,
        asks: &[has("user", Shape::Id, "For whom.")],
        body: &[],
        gives: &[Gives {
            codes: &[Code::Ok],
            fields: &[has("gifts", Shape::List(&Shape::Named("Taste")), "The gifts.")],
        }],
        refuses: &[Code::BadRequest],
    },
    Operation {
        method: "post",
        path: "/v1/claims",
        name: "claim",
        about: "Claims a gift. ACCEPTED is durable; the same claim again gets the same order. INTENT where the user's home is away.",
        service: "claim",
        user: User::Must,
        asks: &[],
        body: &[
            may("activity_id", Shape::Id, "The campaign; the first of the catalogue where it is not said."),
            has("packet_id", Shape::Id, "The coupon: one gift each."),
            has("gift_id", Shape::Id, "The gift."),
            has("zone_id", Shape::Id, "The server."),
            has("role_id", Shape::Id, "The character."),
            may("idempotency_key", Shape::Id, "The caller's own key: the same key with another wish is refused."),
        ],
        gives: &[
            Gives { codes: &[Code::Accepted], fields: ORDER },
            Gives { codes: &[Code::AlreadyClaimed], fields: KNOWN },
            Gives { codes: &[Code::Intent], fields: INTENT },
        ],
        refuses: &[
            Code::BadRequest,
            Code::NotEligible,
            Code::SoldOut,
            Code::Expired,
            Code::BadRole,
            Code::KeyConflict,
            Code::NotStarted,
            Code::Unavailable,
            Code::Deadline,
        ],
    },
    Operation {
        method: "get",
        path: "/v1/claims/{order_no}",
        name: "followClaim",
        about: "Where an order stands, or what became of an intent, for the user whose it is.",
        service: "claim",
        user: User::Must,
        asks: &[has("order_no", Shape::OrderNo, "The order.")],
        body: &[],
        gives: &[
            Gives { codes: &[Code::Ok], fields: ORDER },
            Gives { codes: &[Code::Pending], fields: KNOWN },
            Gives {
                codes: &[Code::Intent, Code::SoldOut, Code::Expired, Code::NotEligible, Code::KeyConflict],
                fields: INTENT,
            },
        ],
        refuses: &[Code::BadRequest, Code::NotFound, Code::Unavailable],
    },
];
