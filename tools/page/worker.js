// A service worker: it keeps every file, and answers with what was kept where there is no network.
// `make demo` writes a line above these, with the FILES and a name for their CACHE.

self.oninstall = (event) => event.waitUntil(keep());
self.onactivate = (event) => event.waitUntil(tidy());
self.onfetch = (event) => event.respondWith(fetch(event.request).catch(() => kept(event.request)));

async function keep() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((name) => new Request(name, { cache: "no-cache" })));
  await self.skipWaiting();
}

async function tidy() {
  const old = (await caches.keys()).filter((name) => name.startsWith("captcha-lessons-") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function kept(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request, { ignoreSearch: true })) ?? Response.error();
}
