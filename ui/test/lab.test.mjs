// The page on real VFs: `ioward ui` in level 1 of the lab, a browser on this machine. IOWARD_XTASK is the program that `cargo xtask` runs;
// `cargo xtask test --only ui` sets it. IOWARD_UI_SCREENSHOTS=1 makes the picture of docs/screenshots.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { chromium } from "playwright-core";
import { said } from "./host.mjs";
import { picture } from "./picture.mjs";

const { IOWARD_XTASK } = process.env;
const skip = IOWARD_XTASK ? false : "IOWARD_XTASK names no program";
/** Each step of a plan is carried out in emulation, beside a guest that boots. */
const timeout = 240_000;

test("a VF of a real adapter is chosen in the page, on another machine than the browser's", { skip }, async (t) => {
  for (let tried = 1; ; tried += 1) {
    const lab = spawn(IOWARD_XTASK, ["lab", "ui", "--timeout", "1500"], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise((resolve) => lab.once("exit", resolve));
    try {
      const [address] = await said(lab, /http:\/\/\S+/);
      return await chooseAt(address);
    } catch (error) {
      // The emulator fails once in a while (lab/README.md).
      if (lab.exitCode === null || tried === 3) throw error;
      t.diagnostic(`level 1 ended with status ${lab.exitCode}; a new one is booted: ${error.message}`);
    } finally {
      lab.kill("SIGTERM");
      await ended;
    }
  }
});

async function chooseAt(address) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, reducedMotion: "reduce" });
    page.setDefaultTimeout(timeout);
    const ask = (path) => page.evaluate((from) => fetch(from).then((answer) => answer.json()), path);
    await page.goto(address);
    await page.getByRole("heading", { level: 1, name: "Machine" }).waitFor();
    // As many as the kernel's drivers give: igb 7, NVMe 4.
    for (const [pf, count] of [["0000:01:00.0", 7], ["0000:02:00.0", 4], ["0000:03:00.0", 7]]) {
      await page.locator(`[data-cell^="${pf}/"]`).nth(count - 1).waitFor();
      assert.equal(await page.locator(`[data-cell^="${pf}/"]`).count(), count, pf);
    }
    await page.getByRole("link", { name: "Choose" }).click();
    await page.locator(".picks label", { hasText: "mail" }).click();
    await page.locator('[data-cell="0000:03:00.0/3"].suits').click();
    const plan = page.locator("#plan");
    await plan.getByText("nobody → mail/net1").waitFor();
    await plan.getByRole("button", { name: "Apply", disabled: false }).click();
    await plan.locator(".progress.done").waitFor();
    const functions = (await ask("/v1/host")).physical_functions;
    const chosen = functions.find((one) => one.address === "0000:03:00.0").virtual_functions[3];
    assert.deepEqual([chosen.owner, chosen.driver], ["mail/net1", "igbvf"]);

    await page.getByRole("link", { name: "Machine" }).click();
    const web = (await ask("/v1/partitions")).find((one) => one.name === "web");
    const { pf, index } = web.vfs.find((one) => one.name === "net0");
    await page.locator(`[data-cell="${pf}/${index}"]`).click();
    if (process.env.IOWARD_UI_SCREENSHOTS) await picture(page, "lab");
  } finally {
    await browser.close();
  }
}
