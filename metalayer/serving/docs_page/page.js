"use strict";
// Shows openapi.json of this server. The key stays in this tab, and goes to this server only.
const NAME = "metalayer-api-key";
const at = (id) => document.getElementById(id);

function headers() {
  const key = sessionStorage.getItem(NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function say(text) {
  at("state").textContent = text;
  at("state").hidden = !text;
}

async function show() {
  let answer;
  try {
    answer = await fetch("openapi.json", { headers: headers() });
  } catch (error) {
    say(`The server does not answer (${error.message}); load the page again when it does.`);
    return;
  }
  if (answer.status === 401) {
    at("why").textContent = sessionStorage.getItem(NAME)
      ? "The server does not know this API key."
      : "This server answers to those who have an API key.";
    at("key").hidden = false;
    say("");
    return;
  }
  if (!answer.ok) {
    say(`The server answers ${answer.status}: ${await answer.text()}`);
    return;
  }
  at("key").hidden = true;
  say("");
  const spec = await answer.json();
  spec.servers = [{ url: new URL(".", location.href).pathname.replace(/\/$/, "") || "/" }];
  window.ui = SwaggerUIBundle({
    spec,
    domNode: at("calls"),
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    tryItOutEnabled: true,
    validatorUrl: null,
    requestInterceptor: (request) => {
      request.headers = { ...request.headers, ...headers() };
      return request;
    },
  });
}

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(NAME, at("value").value);
  show();
});
show();
