"""Swagger UI shows the document of this server; its Content-Security-Policy allows no other host."""

from playwright.sync_api import Page, expect

from tests.server_process import ServerProcess


def test_the_document_is_shown_and_a_route_is_tried(page: Page, server: ServerProcess) -> None:
    page.goto(f"{server.url.removesuffix('/comfyui/workflow')}/docs")
    expect(page.get_by_role("heading", name="comfyui-workflow")).to_be_visible()
    expect(page.locator("#operations-Runs-post_comfyui_workflow_execute")).to_be_visible()
    health = page.locator("#operations-Health-get_health")
    health.get_by_role("button").first.click()
    health.get_by_role("button", name="Try it out").click()
    health.get_by_role("button", name="Execute", exact=True).click()
    expect(health.locator(".live-responses-table").get_by_text("unfinished_runs").first).to_be_visible()
