// Takes a picture of a page: node shot.mjs NODE_MODULES URL FILE
//
// Packages are looked for from NODE_MODULES, which is not beside this file. SPANLOOM_CHROME names a browser that
// is there already; without it the one of the package is unpacked.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, url, file] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const load = async (name) => import(pathToFileURL(require.resolve(name)));

const { default: chromium } = await load("@sparticuz/chromium");
const { default: puppeteer } = await load("puppeteer-core");

const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-proxy-server"],
  executablePath: process.env.SPANLOOM_CHROME || (await chromium.executablePath()),
  headless: "shell",
  // Twice as many dots as points, so that text is sharp.
  defaultViewport: { width: 1200, height: 480, deviceScaleFactor: 2 },
});
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => {
    throw error;
  });
  await page.goto(url, { waitUntil: "networkidle0", timeout: 60_000 });
  await page.waitForSelector(".waterfall .row", { timeout: 60_000 });
  await page.screenshot({ path: file, fullPage: true });
} finally {
  await browser.close();
}
