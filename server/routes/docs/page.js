const nothing = () => () => null

/**
 * Makes the page read-only: it takes no input but a search and sends no calls, so that no key or token ever gets into a page. The
 * package's dialogs for credentials keep only their descriptions.
 */
function forReading({ React: { createElement } }) {
  const button = (className, onClick) => createElement('button', { className, onClick }, 'Credentials')
  return {
    wrapComponents: {
      Button: nothing,
      FilterContainer: nothing,
      Input: nothing,
      JsonSchemaForm: nothing,
      ServersContainer: nothing,
      RequestBody: RequestBody => props =>
        createElement(
          'div',
          null,
          createElement(RequestBody, props),
          formsOf(props).map(form => createElement('pre', { key: form, className: 'form-example' }, form)),
        ),
      authorizeBtn:
        () =>
        ({ onClick, showPopup, getComponent }) =>
          createElement(
            'div',
            { className: 'auth-wrapper' },
            button('btn credentials', onClick),
            showPopup && createElement(getComponent('authorizationPopup', true)),
          ),
      authorizeOperationBtn:
        () =>
        ({ onClick }) =>
          button('btn btn-sm credentials', onClick),
    },
    fn: { opsFilter: findOperations },
    statePlugins: {
      spec: { wrapActions: { updateJsonSpec: update => document => update(byOperation(document)) } },
    },
  }
}

/** The examples of a form, in the format in which they are sent. The package doesn't show them. */
function formsOf({ requestBody, contentType }) {
  if (contentType !== 'application/x-www-form-urlencoded') return []
  const { example, examples = {} } = requestBody.getIn(['content', contentType]).toJS()
  const values = [example, ...Object.values(examples).map(({ value }) => value)]
  return values.filter(Boolean).map(value => String(new URLSearchParams(value)))
}

/**
 * Moves the parameters of a path to each of its operations, because the package doesn't resolve the $ref of a path's parameter.
 */
function byOperation(document) {
  for (const path of Object.values(document.paths)) {
    for (const operation of Object.values(path))
      if (operation.operationId)
        operation.parameters = [...(path.parameters ?? []), ...(operation.parameters ?? [])]
    delete path.parameters
  }
  return document
}

/** The operations that most readers look for come first. The others keep the order of the document. */
const FIRST = [
  '/verify',
  '/issue',
  '/refresh',
  '/introspect',
  '/introspect/batch',
  '/introspect/explain',
  '/revoke',
  '/token',
]
const placeOf = operation => (FIRST.indexOf(operation.get('path')) + FIRST.length + 1) % (FIRST.length + 1)

/** The tags and operations whose text has every word of the search. */
function findOperations(tags, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean)
  const isFound = operation => words.every(word => textOf(operation).includes(word))
  return tags
    .map(tag => tag.update('operations', operations => operations.filter(isFound)))
    .filter(tag => tag.get('operations').size > 0)
}

const texts = new WeakMap()

function textOf(operation) {
  const text = texts.get(operation) ?? JSON.stringify(operation).toLowerCase()
  texts.set(operation, text)
  return text
}

const ui = SwaggerUIBundle({
  url: 'openapi.yaml',
  dom_id: '#reference',
  plugins: [forReading],
  supportedSubmitMethods: [],
  deepLinking: true,
  operationsSorter: (one, other) => placeOf(one) - placeOf(other),
  // The schemas are shown with the operations that use them.
  defaultModelsExpandDepth: -1,
  defaultModelExpandDepth: 3,
})

const field = document.getElementById('search')
field.addEventListener('input', () => {
  const search = field.value.trim()
  ui.layoutActions.updateFilter(search || false)
  const found = ui.specSelectors.taggedOperations().reduce((sum, tag) => sum + tag.get('operations').size, 0)
  document.querySelector('output').value = search === '' ? '' : `${found} found`
})
