// vectors.mjs NAME RUN.JSON: plays sender and receiver to the renthook that RUN.JSON describes.
import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const patience = 120_000; // a callback is due when a rental runs, seconds on a quiet machine
const [name, file] = process.argv.slice(2);
const run = JSON.parse(readFileSync(file, "utf8"));
const generated = readFileSync(run.secret_file, "utf8").trim();
const secret = process.env.WEBHOOK_SECRET ?? generated;
const standard = secret.startsWith("whsec_") ? new Webhook(secret) : new Webhook(secret, { format: "raw" });

function must(ok, what) {
  if (!ok) throw new Error(what);
}

// python runs legacy.py and gives what it prints.
function python(args, input) {
  const p = spawnSync("python3", [new URL("legacy.py", import.meta.url).pathname, ...args], { input, encoding: "utf8" });
  must(p.status === 0, `Python's hmac: ${p.stderr || p.error}`);
  return p.stdout;
}

function signedByNpm(body) {
  const id = `msg_${randomUUID()}`;
  const at = new Date();
  return {
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(at / 1000)),
    "webhook-signature": standard.sign(id, at, body),
  };
}

const signedByPython = (body) => ({ "x-webhook-signature": python(["sign", secret], body) });

async function post(route, body, headers) {
  const answer = await fetch(`http://${run.http}/webhook/${route}`, { method: "POST", body, headers, signal: AbortSignal.timeout(patience) });
  return { status: answer.status, text: await answer.text() };
}

// receive listens for callbacks and hands each to whoever waits for its path.
const waiting = new Map();
const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    response.end();
    waiting.get(request.url)?.({ headers: request.headers, body: Buffer.concat(parts) });
  });
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

function callback(path) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no callback within ${patience / 1000} s`)), patience);
    waiting.set(path, (received) => {
      clearTimeout(late);
      resolve(received);
    });
  });
}

// converse sends one signed request, sees its forgery refused, and verifies its callback with both libraries.
async function converse(what, route, ask, sign, expected) {
  const path = `/${randomUUID()}`;
  const body = JSON.stringify({ ...ask, callback_url: `http://127.0.0.1:${server.address().port}${path}` });
  const called = callback(path);
  called.catch(() => {}); // awaited below, or beside the point when the request is refused

  const forged = await post(route, `${body} `, sign(body));
  must(forged.status === 401, `${what}: another body under the same signature was answered ${forged.status} ${forged.text}, want 401`);
  const answer = await post(route, body, sign(body));
  must(answer.status === 200, `${what}: the signed request was answered ${answer.status} ${answer.text}, want 200`);

  const { headers, body: received } = await called;
  const value = standard.verify(received.toString(), headers);
  must(expected(value), `${what}: the callback says ${received}`);
  let refused = false;
  try {
    standard.verify(`${received} `, headers);
  } catch {
    refused = true;
  }
  must(refused, `${what}: npm's standardwebhooks verifies another body too, so its word means nothing`);
  const legacy = headers["x-webhook-signature"];
  must(legacy, `${what}: the callback has no X-Webhook-Signature`);
  python(["verify", secret, legacy], received);
  console.log(`ok: ${name}: ${what}: accepted, its forgery refused, its callback verified by npm and Python`);
}

try {
  await converse("create-order signed by npm", "create-order", { gpu_type: "RTX 4090", max_price: 0.5 }, signedByNpm, (v) => v.success === true && v.status === "running");
  await converse("status signed by Python", "status", {}, signedByPython, (v) => v.total_orders === 1);
} catch (failure) {
  console.error(`not ok: ${name}: ${failure.message}`);
  process.exitCode = 1;
} finally {
  server.close();
  server.closeAllConnections();
}
