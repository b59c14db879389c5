// What was asked for is where the login leads to: the server does not see the part of an address after "#".

try {
  if (location.hash) sessionStorage.setItem("wanted", location.hash);
} catch {
  // forbidden: then it leads to the first view
}
