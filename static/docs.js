// Swagger UI over this server's own document. It checks the document at no other host.

const root = document.getElementById("swagger-ui");
window.SwaggerUIBundle({
  url: root.dataset.document,
  domNode: root,
  deepLinking: true,
  validatorUrl: null,
});
