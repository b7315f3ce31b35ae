// SPDX-License-Identifier: Apache-2.0
// Short ways to make and change elements. Text from the server only ever becomes text.

export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`index.html has no #${id}`);
  }
  return found;
}

/** An element with a class, some properties, and children (elements or text). */
export function make(tag, { className = "", ...properties } = {}, ...children) {
  const element = document.createElement(tag);
  if (className) {
    element.className = className;
  }
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

/** Change an element's text where it differs: nothing is laid out again for nothing. */
export function say(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
