/** Which view is shown, from what stands behind "#" in the address. */
import { computed, ref } from 'vue'

const hash = ref(location.hash)
addEventListener('hashchange', () => {
  hash.value = location.hash
  scrollTo(0, 0)
})

/** Those of the menu, in its order; `views.ts` says what they show. */
export const VIEWS = ['transfers', 'send', 'fetch', 'peers', 'rules', 'settings'] as const
export type View = (typeof VIEWS)[number]

const parts = computed(() => hash.value.replace(/^#\/?/, '').split('/'))
export const view = computed<View>(() => VIEWS.find((name) => name === parts.value[0]) ?? 'transfers')
export const argument = computed(() => decode(parts.value[1] ?? ''))

export function address(name: View, item = ''): string {
  return `#/${name}${item ? `/${encodeURIComponent(item)}` : ''}`
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}
