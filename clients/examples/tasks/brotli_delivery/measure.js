// One evaluation, in a process of its own: compress the text again and again, check it, and send what it took.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, brotliDecompressSync, constants } from "node:zlib";

const LINK_BYTES_PER_MS = 1000; // 8 Mbit/s
const MODES = {
  generic: constants.BROTLI_MODE_GENERIC, text: constants.BROTLI_MODE_TEXT, font: constants.BROTLI_MODE_FONT,
};

process.once("message", ({ configuration, folder, seconds }) => {
  const text = Buffer.concat(readdirSync(folder).filter((name) => name.endsWith(".proto")).sort()
    .map((name) => readFileSync(join(folder, name))));
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: configuration.quality,
    [constants.BROTLI_PARAM_LGWIN]: configuration.window_bits,
    [constants.BROTLI_PARAM_LARGE_WINDOW]: configuration.large_window,
    [constants.BROTLI_PARAM_MODE]: MODES[configuration.mode],
    [constants.BROTLI_PARAM_LGBLOCK]: configuration.block_bits,
    [constants.BROTLI_PARAM_NPOSTFIX]: configuration.postfix_bits,
    [constants.BROTLI_PARAM_SIZE_HINT]: configuration.size_hint ? text.length : 0,
    [constants.BROTLI_PARAM_DISABLE_LITERAL_CONTEXT_MODELING]: configuration.plain_literals,
  };
  const began = performance.now();
  const times = [];
  let told = 0;
  let packed;
  do {
    const start = performance.now();
    packed = brotliCompressSync(text, { params });
    const now = performance.now();
    times.push(now - start);
    if (now - told >= 100) {
      told = now;
      const fraction = Math.min(1, (now - began) / (1000 * seconds));
      process.send({ progress: { fraction, step: times.length, phase: "compressing", metrics: { packed_bytes: packed.length } } });
    }
  } while (performance.now() - began < 1000 * seconds || times.length < 5);
  const large_window = { [constants.BROTLI_DECODER_PARAM_LARGE_WINDOW]: configuration.large_window };
  if (!brotliDecompressSync(packed, { params: large_window }).equals(text)) throw new Error("the text came back changed");
  const compress_ms = times.sort((a, b) => a - b)[times.length >> 1];
  process.send({
    result: {
      outcome: "OUTCOME_SUCCEEDED",
      metric: compress_ms + packed.length / LINK_BYTES_PER_MS,
      sideMetrics: { compress_ms, packed_bytes: packed.length, text_bytes: text.length, repeats: times.length },
    },
  }, () => process.disconnect());
});
