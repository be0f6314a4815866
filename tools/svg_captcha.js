// Draw captchas of another kind, by the npm package svg-captcha, for `make study WHAT=tuning`:
//   npm install --prefix build/svg svg-captcha@1.4.0 @resvg/resvg-js@2.6.2
//   NODE_PATH=build/svg/node_modules node tools/svg_captcha.js build/svg-captcha
const fs = require("fs");
const { Resvg } = require("@resvg/resvg-js");

let state = 2019; // mulberry32, so that everybody gets the same captchas
Math.random = () => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const captcha = require("svg-captcha");

const folder = process.argv[2];
fs.mkdirSync(folder, { recursive: true });
for (let i = 0; i < 6000; i++) {
  const { text, data } = captcha.create({
    ignoreChars: "0oO1iIl", noise: 2, color: true, background: "#f0f0f0",
  });
  const name = `${text}_${String(i).padStart(4, "0")}.png`;
  fs.writeFileSync(`${folder}/${name}`, new Resvg(data).render().asPng());
}
