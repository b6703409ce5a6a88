// The page within Debian's Cockpit, in a real browser: IOWARD_COCKPIT is a folder with Cockpit's packages unpacked, IOWARD_PACKAGE one with
// ioward's. `cargo xtask test --only ui` makes both. IOWARD_UI_SCREENSHOTS=1 makes the pictures of docs/screenshots.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Cockpit } from "./cockpit.mjs";
import { Host } from "./host.mjs";
import { picture } from "./picture.mjs";

const NETWORK = "0000:02:00.0";
const { IOWARD_COCKPIT, IOWARD_PACKAGE } = process.env;
const skip = IOWARD_COCKPIT && IOWARD_PACKAGE ? false : "IOWARD_COCKPIT and IOWARD_PACKAGE name no folders";

let host;
let cockpit;
let browser;

before(async () => {
  if (skip) return;
  host = new Host();
  await host.start();
  cockpit = new Cockpit({ cockpit: path.resolve(IOWARD_COCKPIT), ioward: path.resolve(IOWARD_PACKAGE), socket: host.socket });
  await cockpit.start();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
});
after(async () => {
  await browser?.close();
  await cockpit?.end();
  await host?.end();
});

/** Cockpit at one of its addresses, and the frame that it shows the page in. Errors of the page's scripts fail the test at its end. */
async function open(t, at = "/ioward", options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: "reduce", ...options });
  await cockpit.logIn(context);
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const errors = [];
  page.on("console", (message) => {
    if (message.type() === "error" && /\/ioward\//.test(message.location().url)) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(`${cockpit.address}${at}`);
  t.after(async () => {
    await context.close();
    assert.deepEqual(errors, []);
  });
  return { page, frame: page.frameLocator('iframe[name$="/ioward"]') };
}

const heading = (frame, name) => frame.getByRole("heading", { level: 1, name });
const partition = async (name) => (await host.get("/v1/partitions")).find((one) => one.name === name);

test("Cockpit has the page in its menu, and its address names the view", { skip }, async (t) => {
  const { page, frame } = await open(t, "/");
  await page.getByRole("link", { name: "I/O virtualization" }).click();
  await heading(frame, "Machine").waitFor();
  await frame.locator(`[data-cell="${NETWORK}/0"]`).click();
  await frame.getByText("live", { exact: true }).waitFor();
  await frame.getByRole("link", { name: "Partitions" }).click();
  await heading(frame, "Partitions").waitFor();
  await page.waitForURL("**/ioward#/partitions");
  await page.goBack();
  await heading(frame, "Machine").waitFor();
  await page.goto(`${cockpit.address}/ioward#/health`);
  await heading(frame, "Health").waitFor();
});

test("what is chosen in Cockpit is carried out through its bridge", { skip }, async (t) => {
  const { frame } = await open(t, "/ioward#/choose");
  await frame.locator(".picks label", { hasText: "web" }).click();
  await frame.locator(`[data-cell="${NETWORK}/5"].suits`).click();
  const plan = frame.locator("#plan");
  await plan.getByText("nobody → web/net1").waitFor();
  await plan.getByRole("button", { name: "Apply", disabled: false }).click();
  await plan.locator(".progress.done").waitFor();
  assert.deepEqual((await partition("web")).vfs.at(-1).index, 5);
});

test("a guest's console is a stream through Cockpit's bridge", { skip }, async (t) => {
  const { page, frame } = await open(t, "/ioward#/partitions");
  await frame.getByRole("button", { name: "Console of web" }).click();
  await frame.locator(".xterm-screen").waitFor();
  await page.keyboard.press("Enter");
  await frame.getByText("web#").first().waitFor({ state: "attached" });
  await page.keyboard.type("vf list\n");
  await frame.getByText("net0").first().waitFor({ state: "attached" });
});

test("the page has the theme that is chosen in Cockpit, whatever the browser's is", { skip }, async (t) => {
  const { page, frame } = await open(t, "/ioward", { colorScheme: "light" });
  const background = () => frame.locator("body").evaluate((body) => getComputedStyle(body).backgroundColor);
  await heading(frame, "Machine").waitFor();
  const light = await background();
  await page.getByRole("button", { name: "Session" }).click();
  await page.getByRole("button", { name: "Dark", exact: true }).click();
  await frame.locator("html[style*=dark]").waitFor();
  const dark = await background();
  assert.notEqual(dark, light);
  await page.reload();
  await heading(frame, "Machine").waitFor();
  assert.equal(await background(), dark);
});

test("a daemon that is lost and comes back is seen as that in Cockpit", { skip }, async (t) => {
  const { frame } = await open(t);
  await frame.getByText("live", { exact: true }).waitFor();
  await host.stop();
  const lost = frame.getByText("The connection to the management partition is lost");
  await lost.waitFor();
  await frame.locator(`[data-cell="${NETWORK}/0"]`).waitFor();
  await host.start(2);
  await lost.waitFor({ state: "detached", timeout: 60_000 });
  await frame.getByText("live", { exact: true }).waitFor();
});

const asked = process.env.IOWARD_UI_SCREENSHOTS ? false : "IOWARD_UI_SCREENSHOTS=1 makes them";
test("screenshots of the page within Cockpit", { skip: skip || asked }, async (t) => {
  for (const colorScheme of ["light", "dark"]) {
    const { page, frame } = await open(t, "/ioward", { colorScheme });
    await frame.locator('[data-cell="0000:01:00.0/0"]').click();
    await picture(page, `cockpit-${colorScheme}-1280`);
  }
});
