"""A person's visit to the page, in the calm and in faults, with a real browser. Leaves pictures of what they saw.

    visit.py EDGE RECOMMEND GAME CLAIM_PID EDGE_PID PACKET_PID FOLDER

EDGE, RECOMMEND and GAME are addresses, the pids those of the claim service, the edge and the packet service, FOLDER is for the pictures.
"""

import asyncio
import json
import os
import signal
import sys
import urllib.request

from browser import Page

EDGE, RECOMMEND, GAME = (f"http://{address}" for address in sys.argv[1:4])
CLAIM_PID, EDGE_PID, PACKET_PID = (int(pid) for pid in sys.argv[4:7])
FOLDER = sys.argv[7]

GIFTS = "document.querySelectorAll('.gift').length > 3"
ROLES = "document.querySelector('#roles label')"
NOTE = "!document.querySelector('#{}').hidden && document.querySelector('#{}').innerText.includes({!r})"


def dial(service, **fault):
    request = urllib.request.Request(f"{service}/fault", json.dumps(fault).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request).read()


def note(element, words):
    return NOTE.format(element, element, words)


def arrived(title):
    return f"[...document.querySelectorAll('.order')].some(o => o.innerText.includes({title!r}) && o.querySelectorAll('.done').length === 3)"


async def picture(page, name, whole=True):
    await page.picture(os.path.join(FOLDER, f"{name}.png"), whole)


async def calm():
    """The list, a character, a claim, the delivery; then the same coupon again; then the other language."""
    async with Page(f"{EDGE}/?user=calm") as page:
        await page.until(GIFTS, "the list")
        assert await page.value("document.querySelector('#gifts-note').hidden"), "nothing is degraded"
        await picture(page, "1-list")
        title = await page.text(".gift b")
        await page.click(".gift")
        await page.until(ROLES, "characters")
        await picture(page, "2-choice", whole=False)
        await page.click("#claim")
        await page.until(arrived(title), "the gift has arrived")
        await picture(page, "3-arrived")
        await page.click("li:nth-child(2) > .gift")
        await page.until(ROLES, "characters")
        await page.click("#claim")
        await page.until(note("notice", "already"), "the same coupon gives the same order")
        assert await page.value("document.querySelectorAll('.order').length") == 1, "and no second one"
        await page.click("#language")
        await page.until("document.documentElement.lang === 'zh' && document.querySelector('h1').innerText.includes('新春')", "Chinese")
        await picture(page, "4-chinese")
        assert not page.errors, page.errors
    async with Page(f"{EDGE}/?user=china", language="zh-CN") as page:
        await page.until("document.documentElement.lang === 'zh'", "who reads Chinese is met in Chinese")


async def degraded():
    """Recommendations fail, the game does not answer: the list and the claim stay."""
    dial(RECOMMEND, garbage=True)
    dial(GAME, delay_ms=20000)
    async with Page(f"{EDGE}/?user=degraded") as page:
        await page.until(GIFTS, "the default list")
        await page.until(note("gifts-note", "usual order"), "it says that it is the default one")
        title = await page.text(".gift b")
        await page.click(".gift")
        await page.until(ROLES, "a form")
        await page.until(note("choice-note", "tell us yourself"), "and why")
        await page.click("#claim")
        await page.until(note("choice-note", "choose a server"), "what is missing is said")
        await page.value("document.querySelector('#roles label:last-child input').value = 'r-7'")
        await picture(page, "5-degraded", whole=False)
        await page.click("#claim")
        await page.until("document.querySelector('.order')", "the claim is taken")
        await picture(page, "6-waits-for-the-game")
        dial(RECOMMEND)
        dial(GAME)
        await page.until(arrived(title), "and arrives when the game is back", 60)
        assert not page.errors, page.errors


async def stalled():
    """The claim service stands still in the middle of a claim: the page asks again under the same key."""
    async with Page(f"{EDGE}/?user=stalled") as page:
        await page.until(GIFTS, "the list")
        await page.click(".gift")
        await page.until(ROLES, "characters")
        os.kill(CLAIM_PID, signal.SIGSTOP)
        try:
            await page.click("#claim")
            await page.until(note("choice-note", "Again in"), "it says what it waits for")
            await picture(page, "7-stalled", whole=False)
        finally:
            os.kill(CLAIM_PID, signal.SIGCONT)
        await page.until("document.querySelectorAll('.order').length === 1", "one order, in the end", 60)


async def cut_off():
    """The edge stands still: what was seen before is shown, with its time."""
    async with Page(f"{EDGE}/?user=cut") as page:
        await page.until(GIFTS, "the list")
        await page.value("document.querySelector('#gifts').replaceChildren()")
        os.kill(EDGE_PID, signal.SIGSTOP)
        try:
            # As on a phone that wakes up: the page is there, its server is not.
            await page.value("import('./gifts.js').then(gifts => gifts.renew())")
            await page.until(note("gifts-note", "from") + " && " + GIFTS, "the list that is kept")
            await picture(page, "8-cut-off")
        finally:
            os.kill(EDGE_PID, signal.SIGCONT)
        await page.until("document.querySelector('#gifts-note').hidden", "and the real one again", 60)


async def money():
    """A packet for two: made, opened by one while its service stands still for a moment, by another, and found empty by a third."""
    async with Page(f"{EDGE}/?user=payer") as page:
        await page.until("document.querySelector('.send')", "the form")
        await page.value("document.querySelectorAll('.send input')[0].value = '8.88'")
        await page.value("document.querySelectorAll('.send input')[1].value = '2'")
        await page.click(".send button")
        await page.until("document.querySelector('.link a')", "the link")
        await picture(page, "9-sent")
        link = await page.value("document.querySelector('.link a').href")
    amounts = []
    for user in ("first", "second"):
        async with Page(f"{link}&user={user}") as page:
            await page.until("document.querySelector('.coin')", "the envelope")
            if user == "first":
                await picture(page, "10-sealed")
                os.kill(PACKET_PID, signal.SIGSTOP)
            try:
                await page.click(".coin")
                if user == "first":
                    await page.until("!document.querySelector('#notice').hidden", "it says that it waits")
            finally:
                os.kill(PACKET_PID, signal.SIGCONT)
            await page.until("document.querySelector('.amount') && document.querySelector('.lucky .me')", "the share")
            amounts.append(await page.text(".amount"))
            if user == "second":
                await picture(page, "11-opened")
            assert not page.errors, page.errors
    fen = [int(amount.replace("¥", "").strip().replace(".", "")) for amount in amounts]
    assert sum(fen) == 888 and min(fen) >= 1, amounts
    async with Page(f"{link}&user=third") as page:
        await page.click(".coin")
        await page.until(note("notice", "Too late"), "it is empty")
        await page.until("document.querySelectorAll('.lucky li').length === 2", "who was lucky")
        await picture(page, "12-empty")


async def main():
    for visit in (calm, degraded, stalled, cut_off, money):
        await visit()
        print(visit.__name__, flush=True)
    print("all good")


asyncio.run(main())
