// Steps of a tour: told one by one, run a few at a time, counted at the end (as steps.py does).
import { createInterface } from "node:readline";

export const PATIENCE_MS = 20_000;
const asked = {};
for (let at = 2; at < process.argv.length; at += 2) asked[process.argv[at].slice(2)] = process.argv[at + 1];

export const ARGS = { transport: "mqtt", ...asked, version: Number(asked.version ?? 5) };
export const TWO_NODES = ARGS.publish !== ARGS.subscribe;
const steps = [];
let number = 0;

/** A client id or topic that nobody else uses. */
export const name = (what) => `${what}-js-${process.pid}-${++number}`;

/** A step for these versions; `twoNodes`: also when publisher and subscriber are on different nodes. `needs`:
 * only with that argument. */
export function step(what, { versions = [3, 4, 5], twoNodes = false, needs } = {}, run) {
  const here = versions.includes(ARGS.version) && (twoNodes || !TWO_NODES);
  // With a login only what needs it.
  const asked = needs ? ARGS[needs] : !ARGS.login;
  if (here && asked) steps.push([what, run]);
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function holds(condition, sentence) {
  if (!condition) throw new Error(sentence);
}

export function same(got, wanted, what = "it") {
  const [left, right] = [JSON.stringify(got), JSON.stringify(wanted)];
  holds(left === right, `${what} is ${left} and not ${right}`);
}

/** The promise, or an error when it takes too long. */
export function within(what, promise, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Has the runner restart the node of `--restart`; resolves when it is up. */
export async function restartNode() {
  const input = createInterface({ input: process.stdin });
  console.log("@restart");
  await new Promise((resolve) => input.once("line", resolve));
  input.close();
}

export async function run(atOnce = 6) {
  const results = [];
  const waiting = steps.slice();
  const worker = async () => {
    for (let next; (next = waiting.shift()); ) {
      const [what, step] = next;
      const began = Date.now();
      try {
        await within("the end of the step", step(), 3 * PATIENCE_MS);
        console.log(`ok ${ARGS.title}: ${what} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
        results.push(true);
      } catch (error) {
        console.log(`not ok ${ARGS.title}: ${what}: ${error?.message ?? error}`);
        console.log(`  # ${String(error?.stack).split("\n").slice(1, 6).join("\n  # ")}`);
        results.push(false);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  const failed = results.filter((passed) => !passed).length;
  console.log(`${results.length - failed} passed, ${failed} failed`);
  process.exit(results.length > 0 && failed === 0 ? 0 : 1);
}
