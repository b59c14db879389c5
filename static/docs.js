// Swagger UI for the OpenAPI document of this server. `validatorUrl: null`: no other host validates the document.

const root = document.getElementById("swagger-ui");
window.SwaggerUIBundle({
  url: root.dataset.document,
  domNode: root,
  deepLinking: true,
  validatorUrl: null,
});
