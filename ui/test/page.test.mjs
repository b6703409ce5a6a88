// The page in a real browser, on a daemon of the simulated machine. IOWARD_UI_URL names a page that is served already
// (then what needs a daemon of its own is left out); IOWARD_UI_SCREENSHOTS=1 makes those of docs/screenshots.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Host } from "./host.mjs";
import { picture } from "./picture.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const VIEWS = ["machine", "choose", "partitions", "history", "health"];
const NETWORK = "0000:02:00.0";

let host;
let browser;

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  if (process.env.IOWARD_UI_URL) return;
  host = new Host();
  await host.start();
});
after(async () => {
  await browser?.close();
  await host?.end();
});

const address = () => process.env.IOWARD_UI_URL ?? host.address();

/** A page of its own browser. Errors of its scripts fail the test at its end. */
async function open(t, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => { if (/Content Security Policy/i.test(message.text())) errors.push(message.text()); });
  await page.goto(await address());
  await page.getByRole("heading", { level: 1 }).waitFor();
  t.after(async () => {
    await context.close();
    assert.deepEqual(errors, []);
  });
  return page;
}

const show = async (page, view) => {
  await page.evaluate((to) => (location.hash = `#/${to}`), view);
  const title = { machine: "Machine", choose: "Choose", partitions: "Partitions", history: "What happened", health: "Health" }[view];
  await page.getByRole("heading", { level: 1, name: title }).waitFor();
};

const cell = (page, pf, index) => page.locator(`[data-cell="${pf}/${index}"]`);
const plan = (page) => page.locator("#plan");
const partition = async (name) => (await host.get("/v1/partitions")).find((one) => one.name === name);
const NEEDS_HOST = process.env.IOWARD_UI_URL ? "a page that is served already has no daemon to look at" : false;

test("the main job by clicks: a new partition gets a VF, and is removed", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t);
  await page.getByRole("link", { name: "Choose" }).click();
  await page.getByRole("button", { name: "New partition" }).click();
  await page.getByLabel("Name", { exact: true }).fill("shop");
  await page.getByRole("button", { name: "Add to the choice" }).click();
  // What suits is lit before anything is picked, and what does not is not.
  await page.locator(`[data-cell="${NETWORK}/0"].suits`).waitFor();
  assert.match(await cell(page, "0000:03:00.0", 0).getAttribute("class"), /unfit/);
  await cell(page, NETWORK, 0).click();
  await page.getByRole("button", { name: "Edit net0" }).click();
  await page.getByLabel("Port VLAN").fill("100");
  await page.getByLabel("Port VLAN").press("Tab");
  await plan(page).getByText("nobody → shop/net0").waitFor();
  await plan(page).getByText("vlan 100").waitFor();
  await plan(page).getByText("Disturbs nobody").waitFor();
  assert.equal(await partition("shop"), undefined, "nothing has changed before it is applied");
  await plan(page).getByRole("button", { name: "Apply" }).click();
  await plan(page).locator(".progress.done").waitFor();
  const made = await partition("shop");
  assert.deepEqual([made.running, made.vfs[0].pf, made.vfs[0].index, made.vfs[0].settings.vlan], [true, NETWORK, 0, 100]);
  await plan(page).getByRole("button", { name: "Choose on" }).click();
  await plan(page).getByText("Nothing is chosen that is not so already").waitFor();

  await page.getByRole("link", { name: "Partitions" }).click();
  await page.getByRole("button", { name: "Remove shop" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("shop/net0 → nobody").waitFor();
  await dialog.getByText("Disturbs", { exact: true }).waitFor();
  await dialog.getByRole("button", { name: "Remove" }).click();
  await dialog.locator(".progress.done").waitFor();
  assert.equal(await partition("shop"), undefined);
});

/** Presses Tab until what is focused is this. */
async function tabTo(page, what, times = 150) {
  for (let pressed = 0; pressed < times; pressed += 1) {
    if (await page.evaluate((selector) => document.activeElement?.matches(selector), what)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`Tab does not lead to ${what}`);
}

test("the main job by keyboard alone", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t);
  await tabTo(page, 'nav a[href="#/choose"]');
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Choose" }).waitFor();
  await tabTo(page, ".chosen-for .head button");
  await page.keyboard.press("Enter");
  await tabTo(page, ".form.boxed input");
  await page.keyboard.type("keys");
  await page.keyboard.press("Enter");
  await page.locator("[data-cell].suits.best").first().waitFor();
  await tabTo(page, "[data-cell]");
  // To the best that suits, on to the next one, and put there.
  await page.keyboard.press("b");
  const best = await page.evaluate(() => document.activeElement.dataset.cell);
  await page.keyboard.press("n");
  const chosen = await page.evaluate(() => document.activeElement.dataset.cell);
  assert.notEqual(chosen, best);
  await page.keyboard.press("Enter");
  await plan(page).getByText("nobody → keys/").waitFor();
  // Taken out, undone, and there again.
  await page.keyboard.press("Delete");
  await page.getByText("is taken out of the choice").waitFor({ state: "attached" });
  await page.keyboard.press("Control+z");
  await plan(page).getByText("nobody → keys/").waitFor();
  await plan(page).getByRole("button", { name: "Apply", disabled: false }).waitFor();
  await tabTo(page, ".apply .primary");
  await page.keyboard.press("Enter");
  await plan(page).locator(".progress.done").waitFor();
  const made = await partition("keys");
  assert.equal(`${made.vfs[0].pf}/${made.vfs[0].index}`, chosen);

  await page.keyboard.press("Home");
  await show(page, "partitions");
  await tabTo(page, '[aria-label="Remove keys"]');
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByText("→ nobody").waitFor();
  await tabTo(page, "dialog .primary:enabled");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").locator(".progress.done").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal(await partition("keys"), undefined);
});

test("a VF in other hands is refused, with who has it", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t);
  await show(page, "choose");
  await page.locator(".picks label", { hasText: "web" }).click();
  await page.locator('[data-cell="0000:03:00.0/0"].unfit').hover();
  await page.locator(".looked").getByText("libvirt domain theirs").first().waitFor();
  await cell(page, "0000:03:00.0", 0).click();
  const refused = plan(page).getByRole("alert");
  await refused.getByText("Refused").waitFor();
  await refused.getByText(/libvirt domain theirs/).first().waitFor();
  assert.ok(await plan(page).getByRole("button", { name: "Apply" }).isDisabled());
  await plan(page).getByRole("button", { name: "Discard" }).click();
  await plan(page).getByText("Nothing is chosen").waitFor();
});

test("a VF of who runs is taken only where disturbing is allowed", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t);
  await show(page, "choose");
  await page.locator(".picks label", { hasText: "web" }).click();
  await page.getByRole("button", { name: "Take net0 out" }).click();
  await plan(page).getByRole("alert").getByText("Refused").waitFor();
  await plan(page).getByLabel("Disturbing who runs is allowed").check();
  await plan(page).getByText("web/net0 → nobody").waitFor();
  await plan(page).getByText("Disturbs", { exact: true }).waitFor();
  await plan(page).getByRole("button", { name: "Apply, and disturb" }).waitFor();
  await plan(page).getByRole("button", { name: "Discard" }).click();
});

test("an apply that fails is seen to be rolled back, and everything is as before", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t);
  const found = await host.get("/v1/spec");
  // Where the machine's folder is to be is something else.
  writeFileSync(path.join((await partition("web")).console, "../../fails"), "");
  await show(page, "choose");
  await page.getByRole("button", { name: "New partition" }).click();
  await page.getByLabel("Name", { exact: true }).fill("fails");
  await page.getByRole("button", { name: "Add to the choice" }).click();
  await page.locator(`[data-cell="${NETWORK}/1"].suits`).click();
  await plan(page).getByRole("button", { name: "Apply", disabled: false }).click();
  await plan(page).locator(".progress.rolled-back").waitFor();
  await plan(page).getByText("Rolled back: everything is as it was before").waitFor();
  assert.ok((await plan(page).locator(".steps .undone").count()) > 0);
  assert.deepEqual(await host.get("/v1/spec"), found);
  await plan(page).getByRole("button", { name: "Back to the choice" }).click();
  await plan(page).getByRole("button", { name: "Discard" }).click();
});

test("two people see each other's changes", { skip: NEEDS_HOST }, async (t) => {
  const one = await open(t);
  const other = await open(t);
  await show(one, "partitions");
  await show(other, "partitions");
  await one.getByRole("button", { name: "Stop web" }).click();
  await one.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
  await other.getByRole("button", { name: "Start web" }).waitFor();
  await one.getByRole("dialog").locator(".progress.done").waitFor();
  await other.getByRole("button", { name: "Start web" }).click();
  await other.getByRole("dialog").getByRole("button", { name: "Start" }).click();
  await one.getByRole("button", { name: "Close", exact: true }).last().click();
  await one.getByRole("button", { name: "Stop web" }).waitFor();
});

test("what was saved as a Spec can be loaded", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t, { acceptDownloads: true });
  await show(page, "choose");
  await page.locator(".picks label", { hasText: "web" }).click();
  await page.locator(`[data-cell="${NETWORK}/5"].suits`).click();
  await plan(page).getByText("nobody → web/net1").waitFor();
  await page.getByRole("button", { name: "Save …" }).click();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save as TOML" }).click()]);
  const saved = await download.path();
  await plan(page).getByRole("button", { name: "Discard" }).click();
  await plan(page).getByText("Nothing is chosen").waitFor();
  await page.getByLabel("Spec to load").setInputFiles({ name: "saved.toml", mimeType: "text/plain", buffer: readFileSync(saved) });
  await plan(page).getByText("nobody → web/net1").waitFor();
  await page.getByLabel("Spec to load").setInputFiles({ name: "bad.toml", mimeType: "text/plain", buffer: Buffer.from("version = ") });
  await page.getByText("bad.toml: line 1: expected a value").waitFor();
});

test("a daemon that is lost and comes back is seen as that", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t);
  await page.getByRole("button", { name: "live" }).waitFor();
  await host.stop();
  await page.getByText("The connection to the management partition is lost").waitFor();
  // What was seen last is still there to be read.
  await cell(page, NETWORK, 0).waitFor();
  await host.start(2);
  await page.getByText("The connection to the management partition is lost").waitFor({ state: "detached", timeout: 60_000 });
  await page.getByRole("button", { name: "live" }).waitFor();
  await show(page, "partitions");
  await page.getByRole("button", { name: "Stop web" }).waitFor();
});

test("32 adapters with 128 VFs are drawn without a shift, and reached by key", async (t) => {
  const page = await open(t);
  await page.addInitScript(() => {
    // What has moved without the user having done anything, and how much of the window (Layout Instability, W3C).
    globalThis.shifts = [];
    new PerformanceObserver((list) => {
      for (const { value, hadRecentInput, sources } of list.getEntries()) {
        if (!hadRecentInput) globalThis.shifts.push({ value, what: sources.map(({ node }) => node?.className ?? node?.nodeName) });
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.route("**/v1/host", async (route) => {
    // Without the ETag that the page sends: "not modified" has no body.
    const { "if-none-match": _, ...headers } = route.request().headers();
    const inventory = await (await route.fetch({ headers })).json();
    const like = inventory.physical_functions.find((pf) => pf.class === "network");
    const physical_functions = Array.from({ length: 32 }, (_, at) => {
      const bus = (0x10 + at * 2).toString(16);
      const virtual_functions = Array.from({ length: 128 }, (_, index) => ({ index, address: `0000:${bus}:${(1 + (index >> 3)).toString(16).padStart(2, "0")}.${index % 8}`, driver: "vfio-pci", iommu_group: at * 128 + index, settings: { mac: "52:54:00:00:00:01" }, owner: index % 3 ? null : `p${index % 7}/net${index}` }));
      return { ...like, address: `0000:${bus}:00.0`, numa_node: at % 2, name: `<b>${like.name}</b>`, sriov: { ...like.sriov, total_vfs: 128, num_vfs: 128 }, virtual_functions };
    });
    await route.fulfill({ json: { ...inventory, generation: inventory.generation + 1, physical_functions }, headers: {} });
  });
  await page.reload();
  await page.locator("[data-cell]").nth(4095).waitFor({ state: "attached" });
  assert.equal(await page.locator("[data-cell]").count(), 4096);
  // A name is text, whatever it looks like.
  assert.equal(await page.locator(".adapter h3 b").count(), 0);
  await page.evaluate(async () => {
    for (let at = 0; at < 20; at += 1) await new Promise(requestAnimationFrame);
  });
  assert.deepEqual(await page.evaluate(() => globalThis.shifts), []);
  await page.locator("[data-cell]").first().focus();
  const frames = await page.evaluate(async () => {
    const times = [];
    let last = performance.now();
    for (let at = 0; at < 40; at += 1) {
      document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
      window.scrollBy(0, 40);
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      times.push(now - last);
      last = now;
    }
    return times.sort((a, b) => a - b);
  });
  t.diagnostic(`frames while moving and scrolling: median ${frames[20].toFixed(1)} ms, longest ${frames[39].toFixed(1)} ms`);
  assert.equal(await page.evaluate(() => document.activeElement.dataset.cell), "0000:10:00.0/40");
});

test("axe finds nothing, in any view, light and dark, wide and narrow", async (t) => {
  const found = [];
  for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 390]]) {
    const page = await open(t, { colorScheme, viewport: { width, height: 844 } });
    for (const view of VIEWS) {
      await show(page, view);
      if (view === "choose") {
        await page.locator("[data-cell].suits.best").first().click();
        await page.locator(".requests [aria-label^=Edit]").last().click();
        await plan(page).locator(".diff").first().waitFor();
      }
      if (view === "history") await page.getByRole("button", { name: /^Plan \d+$/ }).first().click();
      // A script of the page's own is all that its policy allows; what the browser's tools evaluate is no script of the page.
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
      for (const one of violations) found.push(`${view}, ${colorScheme}, ${width}: ${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`);
      if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) found.push(`${view} is wider than ${width}`);
    }
  }
  assert.deepEqual(found, []);
});

test("the console is opened in the page", { skip: NEEDS_HOST }, async (t) => {
  const page = await open(t);
  await show(page, "partitions");
  await page.getByRole("button", { name: "Console of web" }).click();
  const dialog = page.getByRole("dialog");
  // A daemon that is older than the page has none; that is said.
  await dialog.locator(".xterm-screen, .problem").first().waitFor();
  if (await dialog.locator(".problem").count()) return t.diagnostic("this daemon gives no console");
  await page.keyboard.press("Enter");
  await dialog.getByText("web#").first().waitFor({ state: "attached" });
  await page.keyboard.type("vf list\n");
  await dialog.getByText("net0").first().waitFor({ state: "attached" });
});

test("screenshots of every view", { skip: process.env.IOWARD_UI_SCREENSHOTS ? false : "IOWARD_UI_SCREENSHOTS=1 makes them" }, async (t) => {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const page = await open(t, { colorScheme, viewport: { width, height: width > 500 ? 800 : 844 } });
      for (const view of VIEWS) {
        await show(page, view);
        if (view === "choose") {
          await cell(page, NETWORK, 3).click();
          await plan(page).locator(".diff").first().waitFor();
        }
        if (view === "machine") await cell(page, "0000:01:00.0", 0).click();
        if (view === "history") await page.getByRole("button", { name: /^Plan \d+$/ }).first().click();
        if (view === "health") await page.locator(".findings").first().waitFor();
        await page.evaluate(() => scrollTo(0, 0));
        await picture(page, `${view}-${colorScheme}-${width}`);
      }
    }
  }
});
