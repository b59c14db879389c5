"""Accessibility checks of a page: names, headings, contrast, width."""

from typing import Any

from playwright.sync_api import Page

SMALL_TEXT_RATIO = 4.5
_UNNAMED = """() => {
    const told = element => (element.getAttribute("aria-label")
        ?? (element.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean)
            .map(id => document.getElementById(id)?.textContent).join(" ")) || "";
    const labelled = field =>
        told(field) || [...(field.labels ?? [])].map(each => each.textContent).join(" ");
    const isHidden = element => !element.checkVisibility() || element.closest("[aria-hidden=true]");
    const wanting = [
        ...[...document.querySelectorAll("img:not([alt]), svg:not([aria-hidden]):not([aria-label])")],
        ...[...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
            .filter(each => !labelled(each).trim()),
        ...[...document.querySelectorAll("button, a[href], summary")].filter(each =>
            !(told(each) || each.textContent || each.querySelector("img[alt]")?.alt || "").trim()),
        ...[...document.querySelectorAll("progress, audio, video, dialog, nav, section, form[role=search]")]
            .filter(each => !told(each).trim()),
    ];
    return wanting.filter(each => !isHidden(each)).map(each => each.outerHTML.slice(0, 200));
}"""
_HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
    .filter(each => each.checkVisibility()).map(each => Number(each.tagName[1]))"""
_TWICE = """() => {
    const ids = [...document.querySelectorAll("[id]")].map(each => each.id);
    return ids.filter((id, place) => ids.indexOf(id) !== place);
}"""
_FAINT = """least => {
    const brush = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
        .getContext("2d", {willReadFrequently: true});
    const painted = colors => {
        brush.clearRect(0, 0, 1, 1);
        for (const color of colors) {
            brush.fillStyle = color;
            brush.fillRect(0, 0, 1, 1);
        }
        return [...brush.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    };
    const luminance = color => color.map(part => part / 255)
        .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const faint = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
        if (element.closest("script, [disabled], .button.waiting, option")) continue;
        const behind = [];
        for (let each = element; each; each = each.parentElement) {
            behind.unshift(getComputedStyle(each).backgroundColor);
        }
        behind.unshift("Canvas");
        const layers = [[...behind, getComputedStyle(element).color], behind];
        const [text, ground] = layers.map(painted).map(luminance);
        const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        if (ratio < least) faint.push(`${ratio.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 60)}`);
    }
    return [...new Set(faint)];
}"""
_WIDE = """() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    return [...document.body.querySelectorAll("*")]
        .filter(each => each.getBoundingClientRect().right > width + 1)
        .map(each => each.outerHTML.slice(0, 120));
}"""


def unnamed(page: Page) -> list[str]:
    """Returns pictures, fields, buttons, links, bars and sections without a name for screen readers."""
    return _told(page, _UNNAMED)


def headings(page: Page) -> list[int]:
    """Returns the levels of the headings in order."""
    found: list[int] = page.evaluate(_HEADINGS)
    return found


def ids_used_twice(page: Page) -> list[str]:
    return _told(page, _TWICE)


def faint_texts(page: Page) -> list[str]:
    """Returns texts with too little contrast to their background, with the ratio."""
    return _told(page, _FAINT, SMALL_TEXT_RATIO)


def too_wide(page: Page) -> list[str]:
    """Returns the elements that cause horizontal scrolling."""
    return _told(page, _WIDE)


def _told(page: Page, script: str, argument: Any = None) -> list[str]:
    found: list[str] = page.evaluate(script, argument)
    return found
