"use strict";

// Create elements. Text always stays text: nothing here parses markup.
const SVG = document.getElementById("ink").namespaceURI;

function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null) node.setAttribute(key, value);
  }
  node.append(...children); // text stays text
  return node;
}

function put(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}
