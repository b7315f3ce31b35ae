// SPDX-License-Identifier: Apache-2.0
// Values as people read them. What is not known is a dash.

export const DASH = "–";

/** A cortical id (16 hexadecimal digits) as its unit code and the rest: "iinf 01000000". */
export function idText(id) {
  const letters = id.match(/../g).map((pair) => String.fromCharCode(Number.parseInt(pair, 16)));
  const readable = (part) => part.every((letter) => letter >= " " && letter <= "~");
  if (readable(letters)) {
    return letters.join("");
  }
  return readable(letters.slice(0, 4)) ? `${letters.slice(0, 4).join("")} ${id.slice(8)}` : id;
}

function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** A number with about three digits that matter. */
export function figure(value) {
  if (!known(value)) {
    return DASH;
  }
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e9)) {
    return value.toExponential(2);
  }
  const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

export function whole(value) {
  return known(value) ? Math.round(value).toLocaleString("en-US") : DASH;
}

export function milliseconds(value) {
  return known(value) ? `${figure(value)} ms` : DASH;
}

export function hertz(value) {
  return known(value) ? `${figure(value)} Hz` : DASH;
}

export function span(seconds) {
  if (!known(seconds)) {
    return DASH;
  }
  const left = Math.max(0, Math.floor(seconds));
  const [hours, minutes] = [Math.floor(left / 3600), Math.floor(left / 60) % 60];
  return hours > 0 ? `${hours} h ${minutes} min` : minutes > 0 ? `${minutes} min ${left % 60} s` : `${left} s`;
}

/** Text from the server: of bounded length, whatever it was. */
export function told(value, most = 120) {
  const text = typeof value === "string" ? value : "";
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
