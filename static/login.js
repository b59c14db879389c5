// Stores the part of the address after "#", which the server does not receive. The page opens it after the login.

try {
  if (location.hash) sessionStorage.setItem("wanted", location.hash);
} catch {
  // the browser forbids storage: the page opens the first view
}
